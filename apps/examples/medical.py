"""Scans: from CT or MR files to a classifier that needs few labels.

    python apps/examples/medical.py                       # on phantoms it makes itself
    python apps/examples/medical.py --data scans.csv      # on your own

The table has a column `path`, and where known `label`, `patient` and `mask`; a folder of scans
does as well. Labels and masks serve to judge the outcome; learning never sees them.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ssl_medical

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--data", type=Path, help="table or folder of scans; made when not given")
arguments.add_argument("--out", type=Path, default=Path("runs/example-medical"))
arguments.add_argument("--steps", type=int, default=200)
arguments.add_argument("--count", type=int, default=320, help="scans made")
given = arguments.parse_args()

# %% Your own table of scans. Without one, real files are written to look at and to learn from.
data = given.data or given.out / "scans"
if not data.exists():
    ssl_medical.write_samples(data, count=given.count)
table = data / "volumes.csv" if given.data is None else data

# %% Pretrain without labels. The same call again returns the finished run.
run = ssl_medical.pretrain(
    data=table,
    method="simclr",
    steps=given.steps,
    out=given.out / "run",
    settings={"evaluation.more.few_label_dice.steps": min(80, given.steps)},
    progress=True,
)
print(run.summary["verdict"])
print(f"report: {run.report_file}")

# %% How good is it? k-NN and linear probe on scans of held-out patients, against rivals.
found = ssl_medical.evaluate(run)
print(f"linear probe: {found['rivals']['trained']['probe']['accuracy']:.1%} right")

# %% Embed: one row a scan.
model = ssl_medical.load(run)
found = model.embed_source(model.open(table))
vectors, labels = found.features.numpy(), found.labels.numpy()

# %% Use with scikit-learn: a classifier from few labelled scans, cross-validated.
known = labels >= 0
classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
folds = StratifiedKFold(2, shuffle=True, random_state=0)
scores = cross_val_score(classifier, vectors[known], labels[known], cv=folds)
print(f"accuracy over folds: {np.mean(scores):.1%}")
