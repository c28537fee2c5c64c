"""Graphs: from a data set to a classifier of molecules.

    python apps/examples/graph.py                       # on molecules it makes itself
    python apps/examples/graph.py --data tu/MUTAG       # on your own

A folder in TU format, JSON lines or GraphML. Labels serve to judge the outcome; learning never
sees them.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import ssl_graph

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--data", type=Path, help="folder or file of graphs; made when not given")
arguments.add_argument("--out", type=Path, default=Path("runs/example-graph"))
arguments.add_argument("--steps", type=int, default=600)
arguments.add_argument("--count", type=int, default=1200, help="graphs made")
given = arguments.parse_args()

# %% Your own set of graphs. Without one, real files are written to look at and to learn from.
data = given.data or given.out / "graphs"
if not data.exists():
    ssl_graph.write_samples(data, count=given.count)

# %% Pretrain without labels. The same call again returns the finished run.
run = ssl_graph.pretrain(
    data=data, method="simclr", steps=given.steps, out=given.out / "run", progress=True
)
print(run.summary["verdict"])
print(f"report: {run.report_file}")

# %% How good is it? k-NN and linear probe on held-out graphs, against rivals.
found = ssl_graph.evaluate(run)
print(f"linear probe: {found['rivals']['trained']['probe']['accuracy']:.1%} right")

# %% Embed: one row a graph.
model = ssl_graph.load(run)
found = model.embed_source(model.open(data))
vectors, labels = found.features.numpy(), found.labels.numpy()

# %% Use with scikit-learn: the support vector machine that graph papers report, cross-validated.
classifier = make_pipeline(StandardScaler(), SVC(C=1.0))
folds = StratifiedKFold(3, shuffle=True, random_state=0)
scores = cross_val_score(classifier, vectors, labels, cv=folds)
print(f"accuracy over folds: {np.mean(scores):.1%}")

# %% Single graphs need no files: embed what is in memory, as `model.open` yields it or from
# NetworkX and PyTorch Geometric, with the same node features.
source = model.open(data)
few = model.embed([source[row].payload for row in (0, 1, 2)])  # [3, dim]
apart = np.linalg.norm(few[:, None] - few[None], axis=-1)
print(f"the first two graphs are {apart[0, 1]:.2f} apart")
