"""Text: from documents to topics and semantic search.

    python apps/examples/text.py                       # on documentation it makes itself
    python apps/examples/text.py --data corpus.jsonl   # on your own

Documents are lines, files or JSON records; labels serve to judge the outcome, learning never
sees them.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import KNeighborsClassifier

import ssl_text

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--data", type=Path, help="documents; made when not given")
arguments.add_argument("--out", type=Path, default=Path("runs/example-text"))
arguments.add_argument("--steps", type=int, default=240)
arguments.add_argument("--count", type=int, default=1800, help="documents made")
given = arguments.parse_args()

# %% Your own documents. Without one, real files are written to look at and to learn from.
data = given.data or given.out / "documents"
if not data.exists():
    ssl_text.write_samples(data, count=given.count)

# %% Pretrain without labels. The same call again returns the finished run.
run = ssl_text.pretrain(
    data=data, method="simclr", steps=given.steps, out=given.out / "run", progress=True
)
print(run.summary["verdict"])
print(f"report: {run.report_file}")

# %% How good is it? k-NN and linear probe on held-out documents, against rivals.
found = ssl_text.evaluate(run)
print(f"linear probe: {found['rivals']['trained']['probe']['accuracy']:.1%} right")

# %% Embed: one row a document.
model = ssl_text.load(run)
found = model.embed_source(model.open(data))
vectors, labels = found.features.numpy(), found.labels.numpy()

# %% Use with scikit-learn: topics of a corpus, and what a new sentence is about.
topics = KMeans(8, n_init=3, random_state=0).fit(vectors)
print("documents a topic:", np.bincount(topics.labels_).tolist())
classifier = KNeighborsClassifier(min(10, len(vectors)), metric="cosine").fit(vectors, labels)
names = model.open(data).classes
question = model.embed(["How do I read the members of a compressed archive?"])  # [1, dim]
print("a question about:", names[classifier.predict(question)[0]])
