"""Rotation, jigsaw, relative patches, exemplars, inpainting: layouts, labels, blind guesses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reference import Net, OneView, golden, keys
from ssl_core.errors import UserError
from ssl_core.methods.base import Method
from ssl_core.methods.exemplar import Exemplar
from ssl_core.methods.inpainting import Inpainting
from ssl_core.methods.jigsaw import Jigsaw
from ssl_core.methods.relative_patch import RelativePatch
from ssl_core.methods.rotation import Rotation, turned
from ssl_core.networks.holes import at_boxes, inside_boxes, reverse_gradient
from ssl_core.networks.tiles import cut_tiles, permutation_set
from ssl_core.views import View


def data(*sides: int, rows: int = 4) -> Tensor:
    return torch.randn(rows, 2, *sides, generator=torch.Generator().manual_seed(1))


def all_learn(method: Method) -> bool:
    return all(p.grad is not None for p in method.parameters())


def test_turns_equal_the_released_ones() -> None:
    """gidariss/FeatureLearningRotNet, dataloader.py: rotate_img."""
    arrays = golden("rotnet/rotations")
    image = arrays["image_hwc"].permute(2, 0, 1)[None]
    turns = turned(image)
    for label in range(4):
        expected = arrays[f"label{label}_deg{90 * label}"].permute(2, 0, 1)
        assert torch.equal(turns[0, label], expected)
    assert torch.equal(turned(turns[:, 1])[:, 3], image)  # four quarters in all
    # A flip before the turn is a turn the other way: flips belong into the views.
    assert torch.equal(turned(image.flip(-1))[:, 1], turns[:, 3].flip(-1))
    with pytest.raises(UserError, match="square"):
        turned(torch.zeros(1, 1, 4, 6))


def test_blind_guesses_cost_the_logarithm_of_the_classes() -> None:
    methods: list[tuple[Method, int]] = [
        (Rotation(Net(), OneView()), 4),
        (Jigsaw(Net(), OneView(), cells=2, permutations=20, dim=4, hidden=8), 20),
        (RelativePatch(Net(), OneView(), dim=4, hidden=8), 8),
    ]
    for method, classes in methods:
        last = method.head if isinstance(method.head, nn.Linear) else method.head[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        loss = method([View(data(24, 24), keys(4))])
        assert loss.total.item() == pytest.approx(math.log(classes), rel=1e-5)
        assert 0 <= loss.metrics["accuracy"] <= 1
        loss.total.backward()
        assert all_learn(method)


@pytest.mark.parametrize(("axes", "sides"), [(1, (30,)), (2, (24, 30)), (3, (12, 12, 12))])
def test_tiles_stay_in_their_cells_on_any_number_of_axes(axes: int, sides: tuple[int, ...]) -> None:
    places = torch.stack(
        torch.meshgrid(*[torch.arange(s, dtype=torch.float32) for s in sides], indexing="ij")
    ).expand(50, -1, *sides)
    tiles = cut_tiles(places, 3, keys(50), share=0.75, standardise=False)
    size = tuple(round(side // 3 * 0.75) for side in sides)
    assert tiles.shape == (50, 3**axes, axes, *size)
    corner = tiles[(..., *[0] * axes)]  # [50, n, axes]
    cell = torch.tensor([side // 3 for side in sides])
    index = torch.tensor(list(np.ndindex(*[3] * axes)))
    offset = corner - index * cell
    assert (offset >= 0).all()
    assert (offset <= cell - torch.tensor(size)).all()
    assert offset.reshape(-1, axes).std(0).min() > 0
    along = tiles[..., -1, *[0] * (axes - 1), :] if axes > 1 else tiles[..., 0, :]
    assert (along.diff(dim=-1) == 1).all()


def test_tiles_are_standardised_and_keyed() -> None:
    x = data(24, 24) * 3 + 5
    tiles = cut_tiles(x, 3, keys(4))
    assert tiles.mean((3, 4)).abs().max() < 1e-5
    assert (tiles.var((3, 4), correction=0) - 1).abs().max() < 1e-4
    assert torch.equal(cut_tiles(x[1:3], 3, keys(4)[1:3]), tiles[1:3])
    with pytest.raises(UserError, match="too small"):
        cut_tiles(data(5, 5), 3, keys(4))


@pytest.mark.parametrize("first", [0, 123456])
def test_orders_follow_the_greedy_rule(first: int) -> None:
    """bbrattoli/JigsawPuzzlePytorch, select_permutations.py: each row has the greatest mean."""
    expected = golden("jigsaw/permutations")[f"greedy24_first{first}"].long()
    got = permutation_set(9, 24, first=first)
    assert torch.equal(got[:9], expected[:9])
    distance = (got[:, None] != got[None]).sum(-1)
    released = (expected[:, None] != expected[None]).sum(-1)
    for row in range(1, 24):
        # Ties may be broken otherwise, so the sums agree only while the sets do.
        assert distance[row, :row].float().mean() >= released[row, :row].float().mean() - 0.3
        assert distance[row, :row].min() >= 2
    assert len(got.unique(dim=0)) == 24
    assert (got.sort(1).values == torch.arange(9)).all()


def test_small_and_large_sets_of_orders() -> None:
    assert sorted(map(tuple, permutation_set(3, 6).tolist())) == sorted(
        {(a, b, 3 - a - b) for a in range(3) for b in range(3) if a != b}
    )
    large = permutation_set(27, 30)
    assert (large.sort(1).values == torch.arange(27)).all()
    with pytest.raises(ValueError, match="between 1 and 24"):
        permutation_set(4, 25)


def test_shuffling_tiles_or_their_features_is_the_same() -> None:
    method = Jigsaw(Net(), OneView(), cells=2, permutations=10, draws=3, dim=4, hidden=8).eval()
    view = View(data(24, 24), keys(4))
    logits, labels = method.encode([view])[0]
    assert labels.shape == (4, 3)
    tiles = cut_tiles(view.data, 2, view.rng)
    for row in range(4):
        for draw in range(3):
            shuffled = tiles[row : row + 1, method.orders[labels[row, draw]]]
            features = method.tile_head(method.pooled(shuffled, view.rng[:1]))
            torch.testing.assert_close(method.head(features.flatten(1))[0], logits[row, draw])


def test_neighbours_are_labelled_by_their_place() -> None:
    method = RelativePatch(Net(), OneView(), dim=4, hidden=8)
    logits, labels = method.encode([View(data(24, 24), keys(4))])[0]
    assert logits.shape == (4, 8, 8)
    assert labels[0].tolist() == list(range(8))
    volume = RelativePatch(Net(3), OneView(), axes=3, dim=4, hidden=8)
    assert volume.encode([View(data(9, 9, 9), keys(4))])[0][0].shape == (4, 26, 26)
    line = RelativePatch(Net(1), OneView(), axes=1, dim=4, hidden=8)
    assert line.encode([View(data(24), keys(4))])[0][0].shape == (4, 2, 2)


def test_exemplars_that_coincide_cost_the_margin_and_far_ones_nothing() -> None:
    method = Exemplar(Net(), OneView(), dim=4, margin=0.5)
    same = torch.ones(3, 4)
    assert method.loss([same, same]).total.item() == pytest.approx(0.5, abs=1e-3)
    apart = torch.eye(4)
    assert method.loss([apart, apart, apart]).total == 0
    views = [View(data(12, 12), keys(4)), View(data(12, 12) + 0.1, keys(4).fold(1))]
    method(views).total.backward()
    assert all_learn(method)
    with pytest.raises(UserError, match="two views"):
        method(views[:1])


@pytest.mark.parametrize(("axes", "sides"), [(1, (20,)), (2, (20, 24)), (3, (12, 12, 14))])
def test_the_hole_is_hidden_but_for_its_border(axes: int, sides: tuple[int, ...]) -> None:
    seen: list[Tensor] = []
    net = Net(axes)
    net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    options = {"hole": 8, "overlap": 1, "channels": 2, "axes": axes, "decoder_dim": 8}
    for place in ("centre", "random"):
        method = Inpainting(net, OneView(), place=place, adversarial=0.1, **options)
        x = data(*sides) + 3
        made, real = method.encode([View(x, keys(4))])[0]
        assert made.shape == real.shape == (4, 2, *[8] * axes)
        hidden = seen[-1] == 0
        assert hidden.flatten(1).sum(1).tolist() == [2 * 6**axes] * 4
        assert torch.equal(seen[-1][~hidden], x[~hidden])
        for row in range(4):
            inner = real[(row, slice(None), *[slice(1, 7)] * axes)]
            assert torch.equal(inner.flatten(), x[row][hidden[row]])
        method.loss([(made, real)]).total.backward()
        assert all_learn(method)
    with pytest.raises(UserError, match="does not fit"):
        method([View(data(*[8] * axes), keys(4))])


def test_pixels_weigh_ten_times_as_much_in_the_border() -> None:
    options = {"hole": 8, "overlap": 2, "channels": 2, "decoder_dim": 8}
    method = Inpainting(Net(), OneView(), adversarial=0.0, **options)
    real = torch.zeros(3, 2, 8, 8)
    inner = torch.zeros(8, 8)
    inner[2:6, 2:6] = 1
    loss = method.loss([(inner.expand_as(real), real)]).total
    assert loss.item() == pytest.approx(16 / 64)
    loss = method.loss([((1 - inner).expand_as(real), real)]).total
    assert loss.item() == pytest.approx(10 * 48 / 64)


def test_both_sides_of_the_game_follow_their_own_gradient() -> None:
    method = Inpainting(
        Net(), OneView(), hole=8, overlap=1, channels=2, decoder_dim=8, adversarial=0.25
    )
    made = torch.randn(3, 2, 8, 8, requires_grad=True)
    real = torch.randn(3, 2, 8, 8)
    loss = method.loss([(made, real)])
    pixels, adversarial = (
        torch.autograd.grad(part, made, retain_graph=True)[0]
        for part in (
            0.75 * ((made - real).square() * method._weights(real)).mean(),
            nn.functional.softplus(method.judge(made)).mean() / 2,
        )
    )
    (got,) = torch.autograd.grad(loss.total, made)
    torch.testing.assert_close(got, pixels - 0.25 * adversarial)
    x = torch.ones(2, requires_grad=True)
    (reverse_gradient(x, 3.0) * torch.tensor([1.0, 2.0])).sum().backward()
    assert x.grad.tolist() == [-3.0, -6.0]


def test_boxes_are_cut_where_they_are() -> None:
    x = torch.arange(2 * 30).reshape(2, 1, 5, 6)
    start = [torch.tensor([0, 2]), torch.tensor([3, 1])]
    cut = at_boxes(x, start, 3)
    assert torch.equal(cut[0, 0], x[0, 0, 0:3, 3:6])
    assert torch.equal(cut[1, 0], x[1, 0, 2:5, 1:4])
    assert torch.equal(x[inside_boxes(start, 3, (5, 6)).unsqueeze(1)], cut.flatten())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"hole": 12}, "hole must be 4, 8"),
        ({"hole": 8, "overlap": 4}, "2 overlap < hole"),
        ({"place": "left"}, "centre or random"),
    ],
)
def test_impossible_holes_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Inpainting(Net(), OneView(), decoder_dim=64, **{"overlap": 1, **options})
