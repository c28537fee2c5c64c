"""Sound: from a folder of recordings to those that sound unlike the others.

    python apps/examples/audio.py                       # on notes and noises it makes itself
    python apps/examples/audio.py --data recordings/    # on your own

Sub-folders are read as classes. They serve to judge the outcome; learning never sees them.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.neighbors import LocalOutlierFactor

import ssl_audio

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--data", type=Path, help="folder of recordings; made when not given")
arguments.add_argument("--out", type=Path, default=Path("runs/example-audio"))
arguments.add_argument("--steps", type=int, default=600)
arguments.add_argument("--count", type=int, default=800, help="recordings made")
given = arguments.parse_args()

# %% Your own recordings. Without any, real files are written to look at and to learn from.
data = given.data or given.out / "recordings"
if not data.exists():
    ssl_audio.write_samples(data, count=given.count)

# %% Pretrain without labels. The same call again returns the finished run.
run = ssl_audio.pretrain(
    data=data, method="simclr", steps=given.steps, out=given.out / "run", progress=True
)
print(run.summary["verdict"])
print(f"report: {run.report_file}")

# %% How good is it? k-NN and linear probe on held-out recordings, against rivals.
found = ssl_audio.evaluate(run)
print(f"linear probe: {found['rivals']['trained']['probe']['accuracy']:.1%} right")

# %% Embed: one row a recording.
model = ssl_audio.load(run)
found = model.embed_source(model.open(data))
vectors, labels = found.features.numpy(), found.labels.numpy()

# %% Use with scikit-learn: which recordings sound unlike all others?
score = LocalOutlierFactor(n_neighbors=5).fit(vectors).negative_outlier_factor_
for row in np.argsort(score)[:3]:
    print(f"unusual: {found.keys[row]} ({score[row]:.2f})")

# %% Moments instead of whole recordings: events, changes, boundaries.
first = Path(data) / found.keys[0]
frames, seconds = ssl_audio.embed_frames(model, [first])  # one list entry a recording
print(f"{first.name}: {frames[0].shape[0]} moments as {frames[0].shape[1]} numbers each")
