"""GraphMAE: golden values of the release, and what its paper promises about masked nodes."""

from __future__ import annotations

import networkx as nx
import pytest
import torch

from reference import golden
from ssl_core.batch import Batch
from ssl_core.encoder import Features, Tokens
from ssl_core.networks.masks import Mask
from ssl_core.objectives import scaled_cosine
from ssl_core.rng import Rng
from ssl_graph.encoders.create import gin
from ssl_graph.encoders.decoder import RemaskDecoder
from ssl_graph.graph import Graph, GraphBatch
from ssl_graph.methods.graphmae import GraphMAE, swap_some, with_rows_of
from ssl_graph.reader import GraphReader
from ssl_graph.sources.memory import GraphList
from ssl_graph.views.policies import none


def atlas_batch(count: int = 40) -> tuple[GraphBatch, GraphReader]:
    source = GraphList(nx.graph_atlas_g()[200 : 200 + count])
    reader = GraphReader.fit(source)
    return reader.collate([reader.decode(source[i]) for i in range(count)]), reader


@pytest.mark.parametrize("alpha", [1, 2, 3])
def test_error_is_the_released_one(alpha: int) -> None:
    g = golden("graphmae/sce_mask")
    predicted = g["prediction"].clone().requires_grad_()
    loss = scaled_cosine(predicted, g["target"], alpha=alpha)
    loss.backward()
    torch.testing.assert_close(loss, g[f"loss_alpha{alpha}"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(predicted.grad, g[f"grad_alpha{alpha}"], rtol=1e-9, atol=1e-12)


def test_masked_input_is_the_released_one() -> None:
    g = golden("graphmae/sce_mask")
    x, nodes = g["x"], torch.arange(20)
    swapped = torch.isin(nodes, g["noise_nodes"])
    source = nodes.clone()
    source[g["noise_nodes"]] = g["noise_source"]
    values = with_rows_of(x[None], swapped[None], source[None])
    hidden = torch.isin(nodes, g["mask_nodes"])[None]
    mask = Mask(hidden, "replace", replaced=hidden & ~swapped[None])

    encoder = gin({"node_dim": 4, "edge_dim": 0}, dim=3, depth=1).double()
    encoder.enable_mask_token()
    with torch.no_grad():
        encoder.mask_token.copy_(g["mask_token"][0])
    shown: list[torch.Tensor] = []
    encoder.layers[0].register_forward_pre_hook(lambda _, args: shown.append(args[0]))
    graphs = GraphBatch.of([Graph(x, torch.zeros(2, 0, dtype=torch.long))])
    encoder.encode(Tokens(values, valid=torch.ones(1, 20, dtype=torch.bool), context=graphs), mask)
    torch.testing.assert_close(shown[0], g["masked_x"], rtol=1e-9, atol=1e-12)


def test_swapping_keeps_to_hidden_nodes_and_to_the_graph() -> None:
    graphs, reader = atlas_batch()
    tokens = gin(reader.spec).tokenize(graphs.with_x(torch.arange(len(graphs.x) * 1.0)[:, None]))
    before = tokens.values.clone()
    hidden = Rng.at(0, 0, torch.arange(40)).bernoulli("h", tokens.values.shape[1], p=0.5)
    hidden &= tokens.valid
    counts = torch.zeros(2)
    for step in range(60):
        mask = Mask(hidden, "replace")
        shown = swap_some(tokens, mask, Rng.at(0, step, torch.arange(40)), share=0.2)
        assert torch.equal(tokens.values, before)  # the target is never touched
        swapped = hidden & ~mask.replaced
        assert torch.equal(shown.values[~swapped], before[~swapped])
        assert not (mask.replaced & ~hidden).any()
        # Every swapped row shows a node of its own graph.
        value = shown.values[..., 0].long()
        low, high = graphs.ptr[:-1, None], graphs.ptr[1:, None]
        assert ((value >= low) & (value < high))[swapped].all()
        counts += torch.tensor([float(swapped.sum()), float(hidden.sum())])
    share = float(counts[0] / counts[1])
    assert abs(share - 0.2) < 5 * (0.2 * 0.8 / float(counts[1])) ** 0.5


@pytest.mark.parametrize("layer", ["gin", "gcn"])
def test_a_remasked_node_is_decoded_from_its_neighbours_alone(layer: str) -> None:
    graphs, _ = atlas_batch(10)
    decoder = RemaskDecoder(5, 4, layer=layer).double()
    _, valid = graphs.dense()
    codes = torch.randn(*valid.shape, 5, dtype=torch.float64, requires_grad=True)
    hidden = torch.zeros_like(valid)
    hidden[:, 0] = True
    tokens = Tokens(codes.detach(), valid=valid, context=graphs)
    out = decoder(Features(codes.sum(1), codes, valid=valid), Mask(hidden, "replace"), tokens)
    out[:, 0].sum().backward()
    grad = codes.grad.abs().sum(-1) > 0
    neighbours = torch.zeros_like(valid)
    local = graphs.local[graphs.edge_index]
    into_first = local[1] == 0
    neighbours[graphs.edge_batch[into_first], local[0][into_first]] = True
    assert torch.equal(grad, neighbours & ~hidden)


def test_visible_nodes_do_not_enter_the_loss() -> None:
    graphs, reader = atlas_batch()
    method = GraphMAE(gin(reader.spec, dim=8), none(reader.spec), replace=0.0)
    ids = torch.arange(len(graphs))
    views = method.views(Batch(graphs, ids, ids), Rng.at(0, 0, ids))
    (rep,) = method.encode(views)
    rep.predicted = rep.predicted.detach().requires_grad_()
    method.loss([rep]).total.backward()
    moved = rep.predicted.grad.abs().sum(-1) > 0
    assert not (moved & ~rep.mask.hidden).any()
    assert rep.mask.hidden.sum(1).tolist() == [max(1, n // 2) for n in graphs.sizes.tolist()]


def test_perfect_is_zero_and_orthogonal_is_one() -> None:
    graphs, reader = atlas_batch()
    for alpha in (1.0, 3.0):
        method = GraphMAE(gin(reader.spec, dim=8), none(reader.spec), alpha=alpha)
        ids = torch.arange(len(graphs))
        views = method.views(Batch(graphs, ids, ids), Rng.at(0, 0, ids))
        (rep,) = method.encode(views)
        rep.predicted = 7 * rep.target
        assert float(method.loss([rep]).total) == pytest.approx(0, abs=1e-6)
        rep.predicted = rep.target.roll(1, dims=-1)  # one-hot rows: orthogonal
        assert float(method.loss([rep]).total) == pytest.approx(1, abs=1e-6)


def test_hidden_content_does_not_reach_the_encoder() -> None:
    graphs, reader = atlas_batch()
    method = GraphMAE(gin(reader.spec, dim=8), none(reader.spec), replace=0.0).eval()
    ids = torch.arange(len(graphs))
    (view,) = method.views(Batch(graphs, ids, ids), Rng.at(0, 0, ids))
    (rep,) = method.encode([view])
    hidden = graphs.flat(rep.mask.hidden)
    other = graphs.with_x(torch.where(hidden[:, None], torch.full_like(graphs.x, 9.0), graphs.x))
    (again,) = method.encode([type(view)(other, view.rng)])
    assert torch.equal(rep.predicted, again.predicted)


def test_options_are_checked() -> None:
    _, reader = atlas_batch(3)
    for options, word in (
        ({"replace": 1.0}, "replace"),
        ({"alpha": 0.5}, "alpha"),
        ({"decoder": "mlp"}, "decoder"),
        ({"mask_ratio": 1.5}, "mask ratio"),
    ):
        with pytest.raises(ValueError, match=word):
            GraphMAE(gin(reader.spec), none(reader.spec), **options)  # type: ignore[arg-type]
