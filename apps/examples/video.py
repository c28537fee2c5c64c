"""Video: from a folder of clips to search by example.

    python apps/examples/video.py                       # on moving digits it makes itself
    python apps/examples/video.py --data videos/        # on your own

Sub-folders are read as classes. They serve to judge the outcome; learning never sees them.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors

import ssl_video

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--data", type=Path, help="folder of videos; made when not given")
arguments.add_argument("--out", type=Path, default=Path("runs/example-video"))
arguments.add_argument("--steps", type=int, default=300)
arguments.add_argument("--count", type=int, default=400, help="videos made")
given = arguments.parse_args()

# %% Your own folder of videos. Without one, real files are written to look at and to learn from.
data = given.data or given.out / "videos"
if not data.exists():
    ssl_video.write_samples(data, count=given.count)

# %% Pretrain without labels. The same call again returns the finished run.
run = ssl_video.pretrain(
    data=data, method="simclr", steps=given.steps, out=given.out / "run", progress=True
)
print(run.summary["verdict"])
print(f"report: {run.report_file}")

# %% How good is it? k-NN and linear probe on held-out videos, against rivals.
found = ssl_video.evaluate(run)
print(f"linear probe: {found['rivals']['trained']['probe']['accuracy']:.1%} right")

# %% Embed: one row a video.
model = ssl_video.load(run)
found = model.embed_source(model.open(data))
vectors = found.features.numpy()

# %% Use with scikit-learn: search by example.
index = NearestNeighbors(n_neighbors=4, metric="cosine").fit(vectors)
distances, rows = index.kneighbors(vectors[:1])
print(f"most like {found.keys[0]}:")
for distance, row in zip(distances[0, 1:], rows[0, 1:], strict=True):
    print(f"  {found.keys[row]} (distance {distance:.3f})")
assert np.isfinite(vectors).all()
