"""Images: from a folder to groups of similar pictures.

    python apps/examples/vision.py                       # on digits it makes itself
    python apps/examples/vision.py --data photos/        # on your own

Sub-folders are read as classes. They serve to judge the outcome; learning never sees them.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

import ssl_vision

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--data", type=Path, help="folder of images; made when not given")
arguments.add_argument("--out", type=Path, default=Path("runs/example-vision"))
arguments.add_argument("--steps", type=int, default=2400)
arguments.add_argument("--count", type=int, default=1800, help="images made")
given = arguments.parse_args()

# %% Your own folder of images. Without one, real files are written to look at and to learn from.
data = given.data or given.out / "images"
if not data.exists():
    ssl_vision.write_samples(data, count=given.count)

# %% Pretrain without labels. The same call again returns the finished run.
run = ssl_vision.pretrain(
    data=data, method="simclr", steps=given.steps, out=given.out / "run", progress=True
)
print(run.summary["verdict"])
print(f"report: {run.report_file}")

# %% How good is it? k-NN, linear probe and few labels on held-out images, against raw pixels and
# the untrained encoder.
found = ssl_vision.evaluate(run, few_shot=[1, 5])
for shots in found["few_shot"]["trained"]:
    print(f"{shots['shots']} labels a class: {shots['mean']:.1%} right")

# %% Embed: one row an image, with its label and path.
model = ssl_vision.load(run)
found = model.embed_source(model.open(data))
vectors, labels = found.features.numpy(), found.labels.numpy()
print(f"{len(vectors)} images as {vectors.shape[1]} numbers each")

# %% Use with scikit-learn: group images that nobody labelled, and see how the groups fit.
groups = KMeans(int(labels.max()) + 1, n_init=5, random_state=0).fit_predict(vectors)
print(f"groups against classes: NMI {normalized_mutual_info_score(labels, groups):.2f}")

# %% New images need no folder: paths, bytes or arrays.
query = model.embed([np.full((32, 32, 3), 255, np.uint8)])  # [1, dim]
nearest = np.argsort(((vectors - query) ** 2).sum(axis=1))[:3]
print("most like an empty page:", [found.keys[row] for row in nearest])
