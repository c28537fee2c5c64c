"""Graphs as pictures: distances kept, every node drawn, large ones in part."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch

from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_graph.domain import GRAPH
from ssl_graph.graph import Graph, GraphBatch
from ssl_graph.layout import distances, layout
from ssl_graph.pictures import SIDE, draw, sizes
from ssl_graph.reader import GraphReader
from ssl_graph.sources.memory import GraphList


def graph(count: int, edges: list[tuple[int, int]]) -> Graph:
    one_way = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T
    both = torch.cat([one_way, one_way.flip(0)], dim=1)
    return Graph(torch.nn.functional.one_hot(torch.arange(count) % 3, 4).float(), both)


RING = [(i, (i + 1) % 6) for i in range(6)]
PATH = [(i, i + 1) for i in range(4)]


def test_distances_count_edges_and_part_what_is_not_joined() -> None:
    found = distances(5, np.array([[0, 1, 3], [1, 2, 4]]))
    expected = [[0, 1, 2, 3, 3], [1, 0, 1, 3, 3], [2, 1, 0, 3, 3], [3, 3, 3, 0, 1], [3, 3, 3, 1, 0]]
    assert found.tolist() == expected


def test_a_ring_is_round_and_a_path_is_straight() -> None:
    ring = layout(6, np.array(RING).T)
    radius = np.linalg.norm(ring - ring.mean(0), axis=1)
    assert radius == pytest.approx(np.full(6, radius.mean()), rel=0.02)
    path = layout(5, np.array(PATH).T)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps == pytest.approx(np.full(4, steps.mean()), rel=0.05)
    assert np.linalg.norm(path[4] - path[0]) == pytest.approx(4 * steps.mean(), rel=0.02)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_places_are_apart_within_the_unit_square_and_repeat(count: int) -> None:
    star = np.array([[0] * (count - 1), range(1, count)], dtype=np.int64)
    places = layout(count, star)
    assert places.shape == (count, 2)
    assert places.min() >= -1e-9
    assert places.max() <= 1 + 1e-9
    assert np.array_equal(places, layout(count, star))
    if count > 1:
        apart = np.linalg.norm(places[:, None] - places[None], axis=2)[~np.eye(count, dtype=bool)]
        assert apart.min() > 0.01


def test_pictures_show_nodes_in_their_colours_and_hidden_ones_pale() -> None:
    whole = graph(6, RING)
    hidden = Graph(torch.zeros_like(whole.x), whole.edge_index)
    pictures = draw(GraphBatch.of([whole, hidden, graph(1, [])]))
    assert [p.shape for p in pictures] == [(SIDE, SIDE, 3)] * 3
    assert all(p.dtype == np.uint8 for p in pictures)

    def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
        return {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}

    kinds = {(37, 99, 201), (217, 130, 43), (47, 158, 110)}
    assert kinds <= colours(pictures[0])
    assert not kinds & colours(pictures[1])
    assert (205, 209, 213) in colours(pictures[1])
    assert kinds & colours(pictures[2]) == {(37, 99, 201)}


def test_large_graphs_are_drawn_in_part_and_say_so() -> None:
    edges = [(i, i + 1) for i in range(199)]
    batch = GraphBatch.of([graph(200, edges), graph(6, RING)])
    assert sizes(batch) == ["200 nodes, 199 edges, 80 nodes drawn", "6 nodes, 6 edges"]
    assert len(draw(batch)) == 2
    assert GRAPH.words(batch, None) == sizes(batch)  # type: ignore[arg-type]
    assert GRAPH.draw(torch.zeros(2, 3), {}) == []


def test_the_root_of_a_neighbourhood_wears_a_ring() -> None:
    batch = GraphBatch.of([graph(6, RING)])
    rooted = batch.rooted_at(torch.tensor([2]))
    black = [(p == 0).all(2).sum() for p in (draw(batch)[0], draw(rooted)[0])]
    assert black[0] == 0 < black[1]


@pytest.mark.parametrize("name", ["graphmae", "graphmae2", "attribute_masking"])
def test_masked_methods_show_what_they_hide_and_predict(name: str) -> None:
    """Hidden nodes are pale in the one and have a colour of their kinds in the other."""
    torch.manual_seed(0)
    source = GraphList(nx.graph_atlas_g()[200:204])
    reader = GraphReader.fit(source)
    batch = reader.collate([reader.decode(source[i]) for i in range(4)])
    encoder = GRAPH.create_encoder("gin", reader.spec, {"dim": 8, "depth": 2})
    views = GRAPH.create_views("none", reader.spec, {})
    method = GRAPH.methods.build(name, encoder, views, options={}).eval()
    with torch.no_grad():
        found = method.shown([View(batch, Rng.at(0, 0, torch.arange(4)))])
    assert list(found) == ["hidden", "predicted"]
    pale = found["hidden"].x.isnan().any(1)
    assert 4 <= int(pale.sum()) < len(batch.x)
    assert torch.equal(found["hidden"].x[~pale], batch.x[~pale])
    assert torch.equal(found["predicted"].x[~pale], batch.x[~pale])
    assert bool((found["predicted"].x >= 0).all())
    assert not torch.equal(found["predicted"].x, batch.x)
    assert len(draw(found["hidden"])) == 4
