"""SelfTask's targets against released values; views of D-SLA and context prediction; GraphMAE2."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import pytest
import torch

from reference import golden
from ssl_core.batch import Batch
from ssl_core.objectives import scaled_cosine
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_graph.domain import GRAPH
from ssl_graph.encoders.create import gcn, gin
from ssl_graph.features import Schema
from ssl_graph.graph import Graph, GraphBatch
from ssl_graph.methods.attribute_masking import AttributeMasking
from ssl_graph.methods.graphmae import GraphMAE
from ssl_graph.methods.graphmae2 import GraphMAE2
from ssl_graph.methods.selftask import SelfTask, asked_error
from ssl_graph.nodes import inference, targets
from ssl_graph.nodes.blocks import block_network
from ssl_graph.nodes.network import Network
from ssl_graph.reader import GraphReader
from ssl_graph.sources.memory import GraphList
from ssl_graph.views.context import ContextPairs
from ssl_graph.views.discrepancy import Discrepancies, move_edges
from ssl_graph.views.ops import arrival_times, lowest
from ssl_graph.views.partners import by_features, near_distance
from ssl_graph.views.policies import none
from ssl_graph.views.selftask import Questions


def released() -> tuple[dict[str, torch.Tensor], Network]:
    g = golden("selftask/targets")
    edges = g["adjacency"].nonzero().T.contiguous()
    return g, Network.of(Graph(torch.eye(12), edges))


def network_of(graph: nx.Graph) -> Network:
    edges = torch.tensor([*graph.edges, *((b, a) for a, b in graph.edges)]).T
    return Network.of(Graph(torch.eye(graph.number_of_nodes()), edges))


def test_distances_are_the_released_ones() -> None:
    g, network = released()
    distance = targets.hop_distance(network, torch.arange(12))
    assert torch.equal(distance, distance.T)
    above = torch.ones(12, 12).triu(1) > 0
    assert torch.equal(targets.distance_class(distance)[above], g["pair_class"][above])
    near = near_distance(
        network, torch.arange(12).repeat_interleave(12), torch.arange(12).repeat(12)
    )
    want = torch.where(distance > 3, -1, distance)
    assert torch.equal(near.reshape(12, 12), want)


def test_cluster_and_label_targets_are_the_released_ones() -> None:
    g, network = released()
    centres = targets.part_centres(network, g["cluster_of_node"])
    assert torch.equal(centres, g["centres_true"])
    depth = targets.cluster_depth(network, g["cluster_of_node"])
    torch.testing.assert_close(depth.double(), g["inv_depth_true_centres"], rtol=1e-6, atol=1e-7)
    off = targets.inverse_depth(targets.hop_distance(network, g["centres_released"])).T
    torch.testing.assert_close(off.double(), g["inv_depth_released_centres"], rtol=1e-6, atol=1e-7)
    known = torch.full((12,), -1)
    known[g["labelled_nodes"]] = g["labelled_class"]
    near = targets.label_nearness(network, known)
    torch.testing.assert_close(near, g["distance2labeled"], rtol=1e-6, atol=1e-6)
    assert torch.equal(targets.degree_class(network), g["degree_class"])


def test_a_path_has_the_distances_one_counts() -> None:
    network = network_of(nx.path_graph(7))
    distance = targets.hop_distance(network, torch.tensor([0]))[0]
    assert distance.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert targets.distance_class(distance[1:]).tolist() == [0, 1, 2, 3, 3, 3]
    assert targets.inverse_depth(distance)[:3].tolist() == [0.0, 1.0, 0.5]


def test_labels_around_a_node_are_shares() -> None:
    network = network_of(nx.disjoint_union(nx.path_graph(5), nx.complete_graph(4)))
    labels = torch.tensor([0] * 5 + [1] * 4)
    pure = targets.label_context(network, labels, 2)
    assert torch.equal(pure, torch.nn.functional.one_hot(labels, 2).float())
    mixed = targets.label_context(network, torch.tensor([0, 1, 2, 0, 1, 2, 2, 1, 1]), 3, chunk=2)
    torch.testing.assert_close(mixed.sum(1), torch.ones(9))
    torch.testing.assert_close(mixed[0], torch.tensor([1, 1, 1]) / 3)  # nodes 0, 1, 2


def test_propagated_labels_are_harmonic() -> None:
    network = network_of(nx.path_graph(5))
    known = torch.tensor([0, -1, -1, -1, 1])
    share = inference.propagated(network, known, rounds=400)
    torch.testing.assert_close(share[:, 1], torch.linspace(0, 1, 5), rtol=1e-4, atol=1e-5)
    apart = network_of(nx.disjoint_union(nx.path_graph(2), nx.path_graph(2)))
    share = inference.propagated(apart, torch.tensor([0, -1, -1, -1]))
    assert share.shape == (4, 1)


def test_iterated_labels_use_the_neighbours() -> None:
    """Features say little, edges much: neighbours' labels raise the accuracy."""
    table = block_network(400, blocks=4, features=16, mixing=0.1, degree=8, purity=0.25, seed=3)
    network = Network.of(Schema.measure([table.graph]).encode(table.graph))
    truth = torch.tensor(table.labels)
    known = torch.where(torch.from_numpy(table.split == 0), truth, -1)
    share = inference.iterated(network, known, rounds=4)
    torch.testing.assert_close(share.sum(1), torch.ones(400))
    assert torch.equal(share[known >= 0].argmax(1), known[known >= 0])
    alone = inference.iterated(network, known, rounds=0)

    def accuracy(shares: torch.Tensor) -> float:
        return float((shares.argmax(1) == truth)[known < 0].float().mean())

    assert accuracy(share) > accuracy(alone) + 0.1
    both = (share + inference.propagated(network, known)) / 2
    assert accuracy(both) > accuracy(alone) + 0.1
    one = inference.iterated(network, torch.where(known == 2, 2, -1))
    assert (one.argmax(1) == 2).all()


def test_properties_of_nodes_are_networkxs() -> None:
    graph = nx.disjoint_union(nx.barabasi_albert_graph(40, 2, seed=1), nx.path_graph(4))
    graph.add_node(44)
    network = network_of(graph)
    rank = nx.pagerank(graph, tol=1e-12, max_iter=500)
    want = torch.tensor([rank[v] * 45 for v in range(45)])
    torch.testing.assert_close(targets.pagerank(network), want, rtol=1e-4, atol=1e-5)
    near = nx.closeness_centrality(graph)
    got = targets.closeness(network, chunk=16)
    torch.testing.assert_close(
        got, torch.tensor([near[v] for v in range(45)]), rtol=1e-5, atol=1e-6
    )


def test_partners_by_features_are_the_most_and_least_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    network = network_of(nx.path_graph(30))
    network.x = torch.randn(30, 6, generator=generator)
    roots = torch.arange(30).repeat(40)
    partner, alike = by_features(network, roots, Rng.at(0, 0, torch.arange(1200)), chunk=100)
    cosine = torch.nn.functional.cosine_similarity(network.x[:, None], network.x[None], dim=2)
    torch.testing.assert_close(alike[:, 0], cosine[roots, partner])
    order = cosine.fill_diagonal_(2).argsort(1, descending=True)  # itself, then the most alike
    place = order.argsort(1)[roots, partner]
    near = ((place >= 1) & (place <= 3)).float().mean()
    far = (place >= 27).float().mean()
    for share in (near, far):
        assert abs(share - (1 / 3 + 1 / 30)) < 0.06  # any node is among them one time in ten


def test_without_weight_only_the_labels_count() -> None:
    data = Data(path="blocks:200:2", options={"use_labels": True, "sampling": {"fanout": [3]}})
    source = GRAPH.open(data)
    reader = GRAPH.fit_reader(source, data)
    ids = torch.arange(80)
    batch = Batch(reader.collate([reader.decode(source[i]) for i in range(80)]), ids, ids)
    grads = []
    for infer, weight in (("propagation", 0.0), ("ensemble", 0.0), ("ensemble", 3.0)):
        views = Questions(reader.spec, task="context_label", infer=infer)  # type: ignore[arg-type]
        torch.manual_seed(0)
        method = SelfTask(gcn(reader.spec, dim=8), views, weight=weight, supervised=1.0)
        method(method.views(batch, Rng.at(0, 0, ids))).total.backward()
        grads.append(method.encoder.layers[0].conv.lin.weight.grad)
    assert torch.equal(grads[0], grads[1])
    assert not torch.allclose(grads[1], grads[2])
    target, asked = torch.ones(3, 2), torch.tensor([True, False, True])
    answer = torch.tensor([[1.0, 0.0], [9.0, 9.0], [1.0, 1.0]])
    assert float(asked_error(answer, target, asked)) == 0.25
    assert float(asked_error(answer, target, asked & False)) == 0
    with pytest.raises(ValueError, match="not both 0"):
        SelfTask(gcn(reader.spec, dim=8), Questions(reader.spec), weight=0.0)


def test_prototypes_correct_a_wrong_label() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    truth = torch.arange(60) % 2
    features = centres[truth] + 0.25 * torch.randn(60, 3, generator=generator)
    labels = truth.clone()
    labels[:6] = 1 - labels[:6]
    fixed = inference.corrected(features, labels)
    assert (fixed == truth).float().mean() > 0.95


def molecules(count: int = 16) -> tuple[GraphBatch, Batch, dict[str, object]]:
    graphs = [nx.gnp_random_graph(5 + i, 0.25, seed=i) for i in range(count)]
    source = GraphList(graphs)
    reader = GraphReader.fit(source, degree_cap=5)
    batch = reader.collate([reader.decode(source[i]) for i in range(count)])
    ids = torch.arange(count)
    return batch, Batch(batch, ids, ids), dict(reader.spec)


def test_moving_edges_changes_exactly_twice_as_many() -> None:
    graphs, _, _ = molecules()
    rng = Rng.at(0, 0, torch.arange(16))
    region = torch.ones(graphs.num_nodes, dtype=torch.bool)
    for share in (0.1, 0.4, 0.8):
        moved, count = move_edges(graphs, rng, region=region, share=share)
        before = [set(map(tuple, g.edge_index.T.tolist())) for g in graphs.graphs()]
        after = [set(map(tuple, g.edge_index.T.tolist())) for g in moved.graphs()]
        for a, b, m in zip(before, after, count.tolist(), strict=True):
            assert len(a ^ b) == 2 * 2 * m  # 2m edges, each listed twice
            assert len(a) == len(b)
            assert {(y, x) for x, y in b} == b
            wanted = max(1, int(share * len(a) / 2 + 1e-6))
            assert m <= wanted
            assert m == wanted or m in (len(a) // 2, 0) or m < len(a) / 2
    outside = region.clone()
    outside[graphs.ptr[3] : graphs.ptr[4]] = False
    moved, count = move_edges(graphs, rng, region=outside, share=0.5)
    assert count[3] == 0
    assert torch.equal(moved.graphs()[3].edge_index, graphs.graphs()[3].edge_index)


def test_moved_edges_keep_edge_features_of_their_graph() -> None:
    graphs, _, _ = molecules()
    attr = graphs.edge_batch[:, None].float()
    marked = replace(graphs, edge_attr=attr)
    region = torch.ones(graphs.num_nodes, dtype=torch.bool)
    moved, _ = move_edges(marked, Rng.at(1, 0, torch.arange(16)), region=region, share=0.5)
    assert moved.edge_attr is not None
    assert torch.equal(moved.edge_attr[:, 0].long(), moved.edge_batch)


def test_discrepancies_grow_and_do_not_depend_on_the_batch() -> None:
    graphs, batch, _ = molecules()
    policy = Discrepancies(steps=3, share=0.2, strong=0.8, hops=3, node_mask=0.5)
    views = policy(batch, Rng.at(2, 1, batch.ids))
    distance = torch.stack([view.params["distance"] for view in views], 1)
    assert (distance[:, 0] == 0).all()
    assert (distance[:, 1:4].diff(dim=1) >= 0).all()
    assert [view.role for view in views] == ["global"] * 4 + ["strong"]
    rows = torch.tensor([3, 9])
    part = policy(Batch(graphs.select(rows), rows, rows), Rng.at(2, 1, rows))
    for whole, some in zip(views, part, strict=True):
        same = whole.data.select(rows)
        assert torch.equal(same.x, some.data.x)
        edges = [set(map(tuple, g.edge_index.T.tolist())) for g in same.graphs()]
        assert edges == [set(map(tuple, g.edge_index.T.tolist())) for g in some.data.graphs()]


def test_context_views_are_ball_and_ring() -> None:
    graph = nx.path_graph(9)
    source = GraphList([graph, nx.path_graph(2)])
    reader = GraphReader.fit(source, degree_cap=3)
    data = reader.collate([reader.decode(source[i]) for i in range(2)])
    marked = data.with_x(torch.arange(data.num_nodes)[:, None].float())
    ids = torch.arange(2)
    policy = ContextPairs(hops=2, inner=1, outer=4)
    for step in range(6):
        rng = Rng.at(0, step, ids)
        ball, ring = policy(Batch(marked, ids, ids), rng)
        shown = [g.x[:, 0].long().tolist() for g in ball.data.graphs()]
        centre = shown[0][0]
        near = {v for v in range(9) if abs(v - centre) <= 2}
        assert set(shown[0]) == near
        around = {v for v in range(9) if 1 < abs(v - centre) <= 4}
        assert set(ring.data.graphs()[0].x[:, 0].long().tolist()) == around
        overlap = ring.data.graphs()[0].x[ring.params["overlap"][0][: len(around)], 0].long()
        assert set(overlap.tolist()) == around & near
        assert ring.params["valid"].tolist() == [True, False]  # two nodes have no ring
        assert ring.data.sizes[1] == 1
    with pytest.raises(ValueError, match="inner < hops"):
        ContextPairs(hops=2, inner=2, outer=4)


def test_arrival_with_unit_steps_counts_hops() -> None:
    graphs, _, _ = molecules(4)
    steps = torch.ones(graphs.num_nodes, dtype=torch.float64)
    got = arrival_times(graphs, graphs.roots, steps)
    for g, graph in enumerate(graphs.graphs()):
        network = Network.of(graph)
        want = targets.hop_distance(network, torch.tensor([0]))[0].double()
        want[want < 0] = torch.inf
        assert torch.equal(got[graphs.ptr[g] : graphs.ptr[g + 1]], want)
    group, score = torch.tensor([1, 0, 1, 1]), torch.tensor([3.0, 9.0, 1.0, 2.0])
    assert lowest(group, score, torch.tensor([1, 2])).tolist() == [False, True, True, True]


def test_batches_join_and_take_new_roots() -> None:
    graphs, _, _ = molecules(5)
    twice = GraphBatch.cat([graphs, graphs.select([4])])
    assert torch.equal(twice.select([5]).x, graphs.select([4]).x)
    assert torch.equal(twice.select([5]).edge_index, graphs.select([4]).edge_index)
    last = graphs.ptr[1:] - 1
    turned = graphs.rooted_at(last)
    assert torch.equal(turned.x[turned.roots], graphs.x[last])
    before = graphs.x[graphs.edge_index[0]].sum() + graphs.x[graphs.edge_index[1], 0].sum()
    after = turned.x[turned.edge_index[0]].sum() + turned.x[turned.edge_index[1], 0].sum()
    assert torch.equal(before, after)


def test_graphmae2_with_one_fixed_remask_is_graphmae() -> None:
    _, batch, spec = molecules()
    torch.manual_seed(0)
    one = GraphMAE(gin(spec, dim=8, depth=2), none(spec), replace=0.1, alpha=2.0)
    two = GraphMAE2(
        gin(spec, dim=8, depth=2), none(spec), replace=0.1, alpha=2.0, remask="hidden", remasks=1,
        latent=0.0, hidden=8, dim=4,
    )  # fmt: skip
    two.encoder.load_state_dict(one.encoder.state_dict())
    two.decoder.load_state_dict(one.decoder.state_dict())
    views = one.views(batch, Rng.at(0, 3, batch.ids))
    torch.testing.assert_close(two(views).total, one(views).total)
    rebuilt, values, hidden, student, target, kept = two.encode(views)
    assert not target.requires_grad
    latent = scaled_cosine(student, target, alpha=1.0, weight=kept)
    torch.testing.assert_close(
        two.loss((rebuilt, values, hidden, student, target, kept)).parts["latent"], 0 * latent
    )
    with pytest.raises(ValueError, match="remasks"):
        GraphMAE2(gin(spec), none(spec), remask="hidden", remasks=2)


def test_graphmae2_on_local_clusters_aims_at_the_roots() -> None:
    data = Data(path="blocks:120:1", options={"sampler": "local", "sampling": {"max_nodes": 24}})
    source = GRAPH.open(data)
    reader = GRAPH.fit_reader(source, data)
    ids = torch.arange(6)
    nodes = reader.collate([reader.decode(source[i]) for i in range(6)])
    encoder = gin(reader.spec, dim=8, norm="layer")
    method = GraphMAE2(encoder, none(reader.spec), hidden=8, dim=4, edge_drop=0.5)
    views = method.views(Batch(nodes, ids, ids), Rng.at(0, 0, ids))
    _, _, hidden, student, target, kept = method.encode(views)
    assert student.shape == target.shape == (6, 1, 4)
    assert kept.all()
    assert not target.requires_grad
    assert hidden.shape[1] == int(views[0].data.sizes.max())
    method.edge_drop = 0.0
    method.teacher.eval()
    method.eval()
    whole = method.teacher.projector(method.teacher.encoder(views[0].data).pooled)
    torch.testing.assert_close(method.encode(views)[4][:, 0], whole.detach())
    with pytest.raises(ValueError, match="edge_drop must lie"):
        GraphMAE2(encoder, none(reader.spec), edge_drop=1.0)


def test_attribute_masking_names_degrees_and_needs_categories() -> None:
    graphs, batch, spec = molecules()
    method = AttributeMasking(gin(spec, dim=8), none(spec))
    tokens = method.encoder.tokenize(graphs)
    got = graphs.flat(method._categories(tokens, None))[:, 0]  # type: ignore[arg-type]
    degree = torch.bincount(graphs.edge_index[0], minlength=graphs.num_nodes)
    assert torch.equal(got, degree.clamp(max=spec["categories"][0][1] - 1))
    assert method(method.views(batch, Rng.at(0, 0, batch.ids))).total > 0
    with pytest.raises(ValueError, match="nodes of this data have none"):
        AttributeMasking(gin({**spec, "categories": []}, dim=8), none(spec))


def test_questions_have_the_right_answers() -> None:
    data = Data(path="blocks:150:2", options={"use_labels": True, "sampling": {"fanout": [4, 4]}})
    source = GRAPH.open(data)
    reader = GRAPH.fit_reader(source, data)
    ids = torch.arange(60)
    batch = Batch(reader.collate([reader.decode(source[i]) for i in range(60)]), ids, ids)
    network = batch.data.network
    everywhere = targets.hop_distance(network, batch.data.roots)
    rng = Rng.at(0, 0, ids)
    first, second = Questions(reader.spec, task="pair_distance")(batch, rng)
    partner = second.data.origin[second.data.roots]
    distance = everywhere[torch.arange(60), partner]
    want = torch.where(distance == 0, -1, targets.distance_class(distance))
    assert torch.equal(first.params["target"], want)
    assert len(want[want >= 0].unique()) == 4
    first, second = Questions(reader.spec, task="edge")(batch, rng)
    partner = second.data.origin[second.data.roots]
    joined = everywhere[torch.arange(60), partner] == 1
    assert torch.equal(first.params["target"].bool(), joined)
    assert 10 < joined.sum() < 50
    for view in (first, second):
        ends = view.data.origin[view.data.edge_index]
        pair = torch.stack([batch.data.roots, partner])[:, view.data.edge_batch]
        assert not ((ends == pair).all(0) | (ends == pair.flip(0)).all(0)).any()
    (view,) = Questions(reader.spec, task="attributes")(batch, rng)
    assert (view.data.x[view.data.roots] == 0).all()
    assert torch.equal(view.params["target"], network.x[batch.data.roots])
    assert (view.params["known"] >= 0).any()
    assert torch.equal(view.params["asked"], view.params["known"] < 0)
    (view,) = Questions(reader.spec, task="attributes", components=3)(batch, rng)
    centred = network.x.double() - network.x.double().mean(0)
    spread = torch.linalg.svdvals(centred)[:3] ** 2
    found = (targets.principal(network.x, 3).double() ** 2).sum(0)
    torch.testing.assert_close(found, spread, rtol=1e-5, atol=0)
    assert view.params["target"].shape == (60, 3)
    assert {"known", "asked", "target"} == set(view.params)
    with pytest.raises(ValueError, match="needs labels"):
        Questions({"level": "node", "node_dim": 2}, task="context_label")
    with pytest.raises(ValueError, match="not about a collection"):
        Questions({"node_dim": 2})
