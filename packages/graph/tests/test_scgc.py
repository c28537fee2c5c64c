"""SCGC: released values, closed forms, and one batch however it is divided."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reference import assert_gradients, golden
from ssl_core.batch import Batch
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_graph.domain import GRAPH
from ssl_graph.encoders.create import mlp
from ssl_graph.graph import Graph
from ssl_graph.methods import scgc as scgc_module
from ssl_graph.methods.scgc import (
    SCGC,
    cluster_divergence,
    neighbour_contrast,
    student_assignments,
)
from ssl_graph.nodes.affinity import walk_affinity
from ssl_graph.nodes.network import Network
from ssl_graph.views.affinity import scgc


def network_of(adjacency: Tensor) -> Network:
    edges = adjacency.clone().fill_diagonal_(0).nonzero().T.contiguous()
    return Network.of(Graph(torch.eye(len(adjacency)), edges))


@pytest.mark.parametrize(
    ("name", "cumulative", "temperature"), [("plain", False, 0.5), ("cumulative", True, 2.25)]
)
def test_scgc_is_the_released_one(name: str, cumulative: bool, temperature: float) -> None:
    g = golden("scgc/losses")
    network = network_of((g["adjacency_row"] > 0).double())
    gamma = walk_affinity(network, torch.arange(12), power=3, cumulative=cumulative)
    torch.testing.assert_close(gamma.double(), g[f"{name}_gamma"], rtol=1e-6, atol=1e-7)
    z = g["z"].clone().requires_grad_()
    loss = neighbour_contrast(z, g[f"{name}_gamma"], temperature=temperature)
    torch.testing.assert_close(loss, g[f"{name}_loss"], rtol=1e-9, atol=0)
    assert_gradients(loss, [z], [g[f"{name}_grad"]])


def test_scgc_clusters_are_the_released_ones() -> None:
    g = golden("scgc/losses")
    z, centres = (g[n].clone().requires_grad_() for n in ("z", "centres"))
    q = student_assignments(z, centres)
    torch.testing.assert_close(q, g["q"], rtol=1e-9, atol=1e-12)
    loss = cluster_divergence(q)
    torch.testing.assert_close(loss, g["kl"], rtol=1e-9, atol=1e-12)
    assert_gradients(loss, [z, centres], [g["grad_kl_z"], g["grad_kl_centres"]])
    assert float(cluster_divergence(torch.full((6, 3), 1 / 3))) == pytest.approx(0, abs=1e-7)


def test_scgc_limits() -> None:
    g = golden("scgc/losses")
    z = g["z"]
    assert float(neighbour_contrast(z, g["plain_gamma"], temperature=0.0)) == pytest.approx(
        math.log(12), abs=1e-6
    )
    want = math.log(12 / 3)
    assert float(neighbour_contrast(z, g["cumulative_gamma"], temperature=0.0)) == pytest.approx(
        want, abs=1e-6
    )
    assert float(neighbour_contrast(z, torch.ones(12, 12), temperature=0.7)) == pytest.approx(
        0, abs=1e-7
    )


def test_affinity_of_a_batch_is_part_of_the_whole() -> None:
    g = golden("scgc/losses")
    network = network_of((g["adjacency_row"] > 0).double())
    whole = walk_affinity(network, torch.arange(12), power=3)
    rows = torch.tensor([7, 2, 10, 2])
    torch.testing.assert_close(walk_affinity(network, rows, power=3), whole[rows][:, rows])


def test_affinity_of_other_columns_is_part_of_the_whole() -> None:
    network = network_of((golden("scgc/losses")["adjacency_row"] > 0).double())
    whole = walk_affinity(network, torch.arange(12), power=2, cumulative=True)
    rows, columns = torch.tensor([3, 11]), torch.tensor([0, 3, 7, 7])
    found = walk_affinity(network, rows, columns, power=2, cumulative=True)
    torch.testing.assert_close(found, whole[rows][:, columns])


def as_replica(
    monkeypatch: pytest.MonkeyPatch, number: int, pairs: list[tuple[Tensor, Tensor]]
) -> None:
    """Makes SCGC's losses those of replica `number`: `pairs` are (local rows, all rows)."""

    def gathered(x: Tensor) -> Tensor:
        return next(
            everyone
            for local, everyone in pairs
            if x.shape == local.shape and torch.equal(x, local)
        )

    monkeypatch.setattr(scgc_module, "gather", gathered)
    monkeypatch.setattr(scgc_module, "rank", lambda: number)


def test_scgc_couples_the_nodes_of_all_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and gradients of two replicas average to those of one process."""
    g = golden("scgc/losses")
    z, gamma = g["z"].clone().requires_grad_(), g["plain_gamma"]
    whole = neighbour_contrast(z, gamma, temperature=0.5)
    (want,) = torch.autograd.grad(whole, z)
    losses = []
    for number in range(2):
        own = slice(6 * number, 6 * number + 6)
        unit = torch.nn.functional.normalize(z, dim=1)
        as_replica(monkeypatch, number, [(unit[own], unit)])
        losses.append(neighbour_contrast(z[own], gamma[own], temperature=0.5))
    together = torch.stack(losses).mean()
    torch.testing.assert_close(together, whole, rtol=1e-12, atol=0)
    (got,) = torch.autograd.grad(together, z)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)


def blocks_batch(count: int = 60) -> tuple[Batch, dict[str, object]]:
    data = Data(path="blocks:90:0")
    source = GRAPH.open(data)
    reader = GRAPH.fit_reader(source, data)
    ids = torch.arange(count)
    nodes = reader.collate([reader.decode(source[i]) for i in range(count)])
    return Batch(nodes, ids, ids), dict(reader.spec)


def test_scgc_may_be_accumulated() -> None:
    """Representations of parts of a batch, joined, cost what those of the batch cost."""
    batch, spec = blocks_batch()
    method = SCGC(mlp(spec, dim=8, norm="none"), scgc(spec, power=2), clusters=4)
    whole = method.encode(method.views(batch, Rng.at(0, 0, batch.ids)))
    parts = []
    for rows in (slice(0, 20), slice(20, 60)):
        part = replace(batch.data, roots=batch.data.roots[rows])
        ids = batch.ids[rows]
        parts.append(method.encode(method.views(Batch(part, ids, ids), Rng.at(0, 0, ids))))
    joined = tuple(torch.cat(pair) for pair in zip(*parts, strict=True))
    torch.testing.assert_close(method.loss(joined).total, method.loss(whole).total)


def test_scgc_centres_start_once_by_kmeans() -> None:
    batch, spec = blocks_batch()
    ids = batch.ids
    method = SCGC(mlp(spec, dim=8), scgc(spec), clusters=4)
    views = method.views(batch, Rng.at(0, 0, ids))
    assert views[0].data.edge_index.shape == (2, 0)
    method.encode(views)
    assert method.ready
    first = method.centres.detach().clone()
    assert len(first.unique(dim=0)) == 4
    method.encode(views)
    assert torch.equal(first, method.centres)
    few = SCGC(mlp(spec, dim=8), scgc(spec), clusters=10)
    few._start(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    assert len(few.centres.unique(dim=0)) == 10
