"""Do published comparisons keep their shape on artificial graphs? Several methods, three seeds.

    uv run python tools/graph_shapes.py noise [--purity 0.8 0.4 0.2 0.1] [--methods grace dgi]
    uv run python tools/graph_shapes.py graphs [--data motifs atlas]
    uv run python tools/graph_shapes.py noise graphs --write docs/graph.md  # what stands

"noise": a stochastic block network whose node features say less and less about the blocks. Each
method learns the network without a tenth of its links, which it never sees; then its features are
asked for the nodes' blocks (logistic regression, random 10/10/80 splits), for clusters (NMI of
k-means) and for the hidden links (AUC). "mlp" is GRACE with an encoder that is blind to edges,
"averaged" the mean of a node's features and its neighbours', twice over, without any learning.

"graphs": the embedded motif graphs (three classes that differ in the lengths of paths alone) and
the atlas of graphs with up to seven nodes (by how many triangles they hold: 0, 1, 2, more), neither
with node features; logistic regression on random 10/10/80 splits.

Every finished run is a line of `build/graph_shapes.jsonl` and is not made again. The last step is
scored; nothing is chosen on what is scored.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ssl_core.environment  # noqa: F401  thread settings stand before torch is imported

import torch  # isort: skip
from torch import Tensor

import ssl_graph
from learning import spread, write_into
from ssl_core.batch import Source
from ssl_core.runs.rivals import Rivals
from ssl_graph.domain import GRAPH
from ssl_graph.evaluation.links import link_prediction
from ssl_graph.evaluation.measure import cluster_scores, node_scores
from ssl_graph.nodes.blocks import block_network
from ssl_graph.nodes.link_split import LinkSplit, split_links

STORE = Path(__file__).resolve().parents[1] / "build" / "graph_shapes.jsonl"
MARKS = ("<!-- shape tables -->", "<!-- end of shape tables -->")
NODES, NODE_STEPS, GRAPH_STEPS = 1000, 150, 200
PURITIES = (0.8, 0.4, 0.2, 0.1)
NODE_METHODS = {
    "mlp": ("grace", ["encoder.name=mlp"]),
    "dgi": ("dgi", []),
    "grace": ("grace", []),
    "bgrl": ("bgrl", []),
    "cca_ssg": ("cca_ssg", []),
    "graphmae": ("graphmae_nodes", []),
}
GRAPH_METHODS = ("default", "graphcl", "infograph", "graphmae", "dsla")
DATA = ("motifs", "atlas")
SEEDS = (0, 1, 2)
Row = dict[str, Any]


def known() -> list[Row]:
    """The runs of the store, each once: two processes may have made the same one."""
    rows = [json.loads(line) for line in STORE.read_text().splitlines()] if STORE.is_file() else []
    names = ("kind", "at", "method", "seed")
    return list({tuple(row[name] for name in names): row for row in rows}.values())


def stands(identity: Row) -> bool:
    """Whether this run is in the store, made by this process or another one."""
    return any(identity.items() <= row.items() for row in known())


def made(identity: Row, scores: dict[str, dict[str, float]]) -> None:
    """Appends one run: scores by rival and question."""
    STORE.parent.mkdir(parents=True, exist_ok=True)
    with STORE.open("a") as out:
        out.write(json.dumps({**identity, "scores": scores}) + "\n")
    trained = {name: round(100 * value, 1) for name, value in scores["trained"].items()}
    print(*identity.values(), trained, file=sys.stderr, flush=True)


def learned(recipe: str, settings: Sequence[str], source: Source, seed: int, folder: str) -> Rivals:
    run = ssl_graph.pretrain(
        recipe,
        source=source,
        seed=seed,
        settings=["data.holdout=0", "evaluation.limit=256", *settings],
        out=f"{folder}/{recipe}-{seed}",
        progress=False,
    )
    return Rivals.of(run, GRAPH)


def noise(purities: Sequence[float], methods: Sequence[str]) -> None:
    """Every method at every purity; a seed draws the network and the weights."""
    for purity in purities:
        for method in methods:
            for seed in SEEDS:
                identity = {"kind": "noise", "at": purity, "method": method, "seed": seed}
                if not stands(identity):
                    made(identity, _asked_nodes(purity, method, seed))


def _asked_nodes(purity: float, method: str, seed: int) -> dict[str, dict[str, float]]:
    recipe, own = NODE_METHODS[method]
    split = split_links(block_network(NODES, purity=purity, seed=seed), share=0.1, seed=seed)
    source = ssl_graph.NodeSource(split.table)
    with tempfile.TemporaryDirectory() as folder:
        rivals = learned(recipe, [f"train.steps={NODE_STEPS}", *own], source, seed, folder)
        found = rivals.features(source)
    features = {name: rows.features for name, rows in found.items()}
    features["averaged"] = _averaged(features["raw"], split)
    labels = found["raw"].labels
    return {name: _node_questions(x, labels, split, seed) for name, x in features.items()}


def _averaged(x: Tensor, split: LinkSplit, times: int = 2) -> Tensor:
    """Each node's features and its neighbours', averaged, `times` over."""
    ends = torch.as_tensor(split.table.graph.edges)
    pairs = torch.cat([ends, ends.flip(1), torch.arange(len(x))[:, None].expand(-1, 2)]).unique(
        dim=0
    )
    count = torch.zeros(len(x)).index_add_(0, pairs[:, 0], torch.ones(len(pairs)))
    for _ in range(times):
        x = torch.zeros_like(x).index_add_(0, pairs[:, 0], x[pairs[:, 1]]) / count[:, None]
    return x


def _node_questions(x: Tensor, labels: Tensor, split: LinkSplit, seed: int) -> dict[str, float]:
    classes = int(labels.max()) + 1
    return {
        "nodes": _accuracy(x, labels, seed),
        "clusters": cluster_scores(x, labels, classes, seeds=(seed,))["nmi"]["mean"],
        "links": link_prediction(x, split).auc,
    }


def _accuracy(x: Tensor, labels: Tensor, seed: int) -> float:
    """Of a logistic regression on a random tenth, its penalty chosen on another tenth."""
    found: float = node_scores(x, labels, None, seeds=(seed,))["random"]["test"]["mean"]
    return found


def graphs(data: Sequence[str], methods: Sequence[str]) -> None:
    """Every method on every collection; a seed draws weights, views and splits."""
    for name in data:
        source = _collection(name)
        for method in methods:
            for seed in SEEDS:
                identity = {"kind": "graphs", "at": name, "method": method, "seed": seed}
                if stands(identity):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    steps = [f"train.steps={GRAPH_STEPS}"]
                    found = learned(method, steps, source, seed, folder).features(source)
                scores = {
                    rival: {"graphs": _accuracy(rows.features, rows.labels, seed)}
                    for rival, rows in found.items()
                }
                made(identity, scores)


def _collection(name: str) -> Source:
    import networkx as nx  # type: ignore[import-untyped]

    from ssl_graph.motifs import COUNT
    from ssl_graph.sources.open import open_graphs

    if name == "motifs":
        return open_graphs(f"motifs:{COUNT}")
    listed = [graph for graph in nx.graph_atlas_g() if graph.number_of_edges()]
    triangles = [min(3, sum(nx.triangles(graph).values()) // 3) for graph in listed]
    return ssl_graph.GraphList(listed, labels=triangles)


def tables(kinds: Sequence[str]) -> Iterator[str]:
    """Markdown of what stands in the store."""
    rows = known()
    if "noise" in kinds:
        for question, title in (
            ("nodes", "Communities of nodes, accuracy"),
            ("clusters", "Clusters, NMI"),
            ("links", "Links never seen, AUC"),
        ):
            yield from _table(title, rows, "noise", PURITIES, question, NODE_METHODS)
    if "graphs" in kinds:
        yield from _table(
            "Classes of graphs, accuracy", rows, "graphs", DATA, "graphs", GRAPH_METHODS
        )


def _table(
    title: str, rows: Sequence[Row], kind: str, columns: Any, question: str, methods: Any
) -> Iterator[str]:
    here = [row for row in rows if row["kind"] == kind]
    columns = [at for at in columns if any(row["at"] == at for row in here)]
    methods = [name for name in methods if any(row["method"] == name for row in here)]
    if not here:
        return
    yield f"| {title} (x 100) | " + " | ".join(map(str, columns)) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    first = methods[0]
    # What no method makes is the same beside each; untrained encoders are those of the first GCN.
    still = {"raw": first, "averaged": first, "untrained": "grace" if kind == "noise" else first}
    for name in [r for r in still if r in here[0]["scores"]] + methods:
        rival = name if name in still else "trained"
        cells = []
        for at in columns:
            found = [
                100 * row["scores"][rival][question]
                for row in here
                if row["at"] == at and row["method"] == still.get(name, name)
            ]
            cells.append(spread(found) if found else "-")
        yield f"| {name if name in still else f'`{name}`'} | " + " | ".join(cells) + " |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="+", choices=("noise", "graphs"))
    parser.add_argument("--purity", nargs="+", type=float, default=PURITIES)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--methods", nargs="+", choices=sorted({*NODE_METHODS, *GRAPH_METHODS}))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="only write tables into a page")
    given = parser.parse_args()
    if given.write is None:
        if "noise" in given.kinds:
            noise(given.purity, [m for m in NODE_METHODS if m in (given.methods or NODE_METHODS)])
        if "graphs" in given.kinds:
            graphs(given.data, [m for m in GRAPH_METHODS if m in (given.methods or GRAPH_METHODS)])
    text = "\n".join(tables(given.kinds)).rstrip()
    print(text)
    if given.write is not None:
        write_into(given.write, text, MARKS)


if __name__ == "__main__":
    main()
