"""Graph views, encodings and samplers against PyTorch Geometric's, timed turn by turn.

    uv run python tools/bench/graph.py --rounds 9
    uv run python tools/bench/graph.py --scale --nodes 200000     # samplers on 1.2 million edges

Peers are what PyG offers without compiled extras (its neighbour, cluster and walk loaders need
pyg-lib or torch-sparse): transforms called on every graph and then batched, its functions called
once on the union of all graphs where that means the same or nearly so, and `k_hop_subgraph`.
Processor time is counted on one thread and rounds alternate, so that a busy machine slows all; what
is reported is the median of the ratios. `--scale` runs every sampler in a process of its own: time
of a batch, and how far the process grew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable

import ssl_core.environment  # noqa: F401  thread settings stand before torch is imported

import torch  # isort: skip
from resident import MIB, forget_peak, resident

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_graph.features import Schema
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.blocks import block_network
from ssl_graph.nodes.network import Network
from ssl_graph.nodes.samplers import SAMPLERS
from ssl_graph.positions import laplacian_positions, return_probabilities
from ssl_graph.pyg import data as pyg  # PyG's first import, with its warning silenced
from ssl_graph.samples import molecule
from ssl_graph.views import policies
from ssl_graph.views.diffusion import diffused

from torch_geometric import transforms, utils  # isort: skip

Candidates = dict[str, Callable[[int], object]]


def graph_cases(count: int) -> dict[str, Candidates]:
    """Operations on a batch of `count` molecules."""
    raws = [molecule(index, seed=0)[0] for index in range(count)]
    schema = Schema.measure(raws)
    graphs = [schema.encode(raw) for raw in raws]
    ours = GraphBatch.of(graphs)
    theirs = [graph.to_pyg() for graph in graphs]
    union = pyg.Batch.from_data_list(theirs)
    ids = torch.arange(count)
    batch = Batch(ours, ids, ids)
    grace = policies.GraphViews([{"edge_drop": 0.2, "feature_mask": 0.3}])
    drop = policies.GraphViews([{"node_drop": 0.2}])
    gdc = transforms.GDC(
        self_loop_weight=1.0,
        normalization_in="sym",
        normalization_out=None,
        diffusion_kwargs={"method": "ppr", "alpha": 0.2},
        sparsification_kwargs={"method": "threshold", "eps": 1e-4},
        exact=True,
    )
    walks, eigenvectors = transforms.AddRandomWalkPE(8), transforms.AddLaplacianEigenvectorPE(8)

    def thinned(graph: pyg.Data) -> pyg.Data:
        edges, _ = utils.dropout_edge(graph.edge_index, p=0.2, force_undirected=True)
        x, _ = utils.mask_feature(graph.x, p=0.3, mode="col")
        return pyg.Data(x=x, edge_index=edges)

    def smaller(graph: pyg.Data) -> pyg.Data:
        edges, _, kept = utils.dropout_node(
            graph.edge_index, 0.2, graph.num_nodes, relabel_nodes=True
        )
        return pyg.Data(x=graph.x[kept], edge_index=edges)

    def each(change: Callable[[pyg.Data], pyg.Data]) -> Callable[[int], object]:
        return lambda step: pyg.Batch.from_data_list([change(graph.clone()) for graph in theirs])

    edges = [graph.edge_index.numpy() for graph in graphs]
    sizes = [graph.num_nodes for graph in graphs]
    return {
        "batching": {
            "ours": lambda step: GraphBatch.of(graphs),
            "PyG": lambda step: pyg.Batch.from_data_list(theirs),
        },
        "edge drop, column mask": {
            "ours": lambda step: grace(batch, Rng.at(0, step, ids)),
            "PyG, each graph": each(thinned),
            "PyG, union (columns shared)": lambda step: thinned(union),
        },
        "node drop": {
            "ours": lambda step: drop(batch, Rng.at(0, step, ids)),
            "PyG, each graph": each(smaller),
        },
        "PPR diffusion": {"ours": lambda step: diffused(ours), "PyG GDC": each(gdc)},
        "random-walk encodings": {
            "ours": lambda step: [
                return_probabilities(e, n, steps=8) for e, n in zip(edges, sizes, strict=True)
            ],
            "PyG": lambda step: [walks(graph.clone()) for graph in theirs],
        },
        "Laplacian encodings": {
            "ours": lambda step: [
                laplacian_positions(e, n, width=8) for e, n in zip(edges, sizes, strict=True)
            ],
            "PyG": lambda step: [eigenvectors(graph.clone()) for graph in theirs],
        },
    }


def node_cases(nodes: int, roots: int) -> dict[str, Candidates]:
    """Two-hop neighbourhoods of `roots` nodes of one network."""
    network = network_of(nodes)
    edges = torch.stack([network.neighbours, network.targets])
    some = torch.arange(0, nodes, nodes // roots)[:roots]

    def k_hop(step: int) -> object:
        found = []
        for root in some.tolist():
            kept, inside, _, _ = utils.k_hop_subgraph(
                root, 2, edges, relabel_nodes=True, num_nodes=nodes
            )
            found.append(pyg.Data(x=network.x[kept], edge_index=inside))
        return pyg.Batch.from_data_list(found)

    return {
        f"all of two hops, {nodes} nodes": {
            "ours": lambda step: SAMPLERS["khop"](
                network, some, Rng.at(0, step, some), hops=2, max_nodes=10**6
            ),
            "PyG k_hop_subgraph": k_hop,
        }
    }


def network_of(nodes: int, *, degree: float = 12.0) -> Network:
    """A block network with 16 features."""
    raw = block_network(nodes, degree=degree, features=16).graph
    network = Network.of(Schema.measure([raw]).encode(raw))
    _ = network.reverse, network.targets, network.degree  # built once, before any batch
    return network


def compare(cases: dict[str, Candidates], rounds: int) -> None:
    """Prints milliseconds and the median of the ratios, case by case."""
    print("| case | candidate | ms a batch | ours is faster by |\n|---|---|---|---|")
    for case, candidates in cases.items():
        spent: dict[str, list[float]] = {name: [] for name in candidates}
        for step in range(rounds + 1):
            for name, make in candidates.items():
                began = time.process_time()
                make(step)
                if step:  # the first round warms up
                    spent[name].append(1000 * (time.process_time() - began))
        for name, times in spent.items():
            pairs = zip(times, spent["ours"], strict=True)
            ratio = statistics.median(t / max(o, 1e-6) for t, o in pairs)
            shown = "" if name == "ours" else f"{ratio:.1f} x"
            print(f"| {case} | {name} | {statistics.median(times):.1f} | {shown} |", flush=True)


OPTIONS: dict[str, dict[str, object]] = {
    "neighbours": {"fanout": (15, 10)},
    "walk": {"walks": 4, "length": 8},
    "ppr": {"top": 32},
    "local": {"max_nodes": 128},
    "khop": {"hops": 2},
    "cluster": {"max_nodes": 128},
}


def scale(nodes: int, roots: int, rounds: int) -> None:
    """Every sampler on one large network."""
    began = time.process_time()
    network = network_of(nodes)
    undirected = network.num_edges // 2
    print(
        f"{nodes} nodes, {undirected} edges (listed both ways), made and indexed in "
        f"{time.process_time() - began:.1f} s, process at {resident() / MIB:.0f} MiB"
    )
    print(
        f"| sampler | ms a batch of {roots} | nodes | edges | memory, MiB |\n|---|---|---|---|---|"
    )
    for name, options in OPTIONS.items():
        context = multiprocessing.get_context("fork")
        receive, send = context.Pipe(duplex=False)
        arguments = (network, name, options, roots, rounds, send)
        child = context.Process(target=sample, args=arguments)
        child.start()
        milliseconds, found, edges, grown = receive.recv()
        child.join()
        print(f"| {name} | {milliseconds:.0f} | {found} | {edges} | {grown:.0f} |", flush=True)


def sample(network: Network, name: str, options: dict, roots: int, rounds: int, send) -> None:
    """Runs in a process of its own: times one sampler and sends what it found."""
    before, times = resident(), []
    forget_peak()
    if name == "cluster":
        began = time.process_time()
        network.clusters  # noqa: B018  (grown once)
        print(f"(the partition took {time.process_time() - began:.1f} s, once)")
    for step in range(rounds):
        keys = Rng.at(0, step, torch.arange(roots))
        chosen = keys.integers("root", high=network.num_nodes)
        began = time.process_time()
        graphs = SAMPLERS[name](network, chosen, keys, **options)
        times.append(1000 * (time.process_time() - began))
    counts = graphs.num_nodes, graphs.edge_index.shape[1]
    send.send((statistics.median(times), *counts, (resident("VmHWM") - before) / MIB))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--graphs", type=int, default=128)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--roots", type=int, default=256)
    parser.add_argument("--scale", action="store_true", help="every sampler on one large network")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.scale:
        scale(given.nodes, given.roots, given.rounds)
        return
    compare(graph_cases(given.graphs), given.rounds)
    compare(node_cases(given.nodes, given.roots), given.rounds)


if __name__ == "__main__":
    main()
