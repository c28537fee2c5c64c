"""BEiT: its codes, what the encoder may see, and the collapsed values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from reference import OneView, draw, keys
from ssl_core.encoder import Tokens
from ssl_core.errors import UserError
from ssl_core.methods.beit import BEiT, codes_used
from ssl_core.networks.tokenizer import FiniteScalarQuantiser, PatchTokenizer
from ssl_core.networks.vit import PatchTransformer
from ssl_core.views import View


def tiny(sides: tuple[int, ...] = (24, 24), **options: object) -> BEiT:
    torch.manual_seed(0)
    encoder = PatchTransformer(
        channels=2, sides=sides, patch=(4,) * len(sides), dim=16, depth=2, heads=2
    )
    return BEiT(encoder, OneView(), **{"levels": (4, 3, 3), "mask_block": 4, **options})


def images(*sides: int, rows: int = 4) -> Tensor:
    return torch.randn(rows, 2, *sides, generator=torch.Generator().manual_seed(1))


def test_every_code_is_reached_once_and_values_lie_on_a_grid() -> None:
    levels = (8, 5, 2)
    quantise = FiniteScalarQuantiser(levels)
    z = 4 * torch.randn(60_000, 3, generator=torch.Generator().manual_seed(0))
    values, ids = quantise(z)
    assert quantise.codes == 80
    assert sorted(ids.unique().tolist()) == list(range(80))
    pairs = torch.cat([values, ids[:, None].float()], dim=1).unique(dim=0)
    assert len(pairs) == 80  # one code, one vector
    for axis, level in enumerate(levels):
        assert len(values[:, axis].unique()) == level
        assert values[:, axis].abs().max() <= 1


def test_the_gradient_passes_the_rounding() -> None:
    quantise = FiniteScalarQuantiser((5, 4))
    z = draw(7, 2).detach().mul_(0.3).requires_grad_()
    values, _ = quantise(z)
    weights = draw(7, 2, seed=1).detach()
    (grad,) = torch.autograd.grad((values * weights).sum(), z)
    half = torch.tensor([4.0, 3.0], dtype=torch.float64) * 1.001 / 2
    shift = torch.tensor([0.0, 0.5], dtype=torch.float64)
    smooth = (1 - (z + (shift / half).atanh()).tanh() ** 2) * half / 2
    torch.testing.assert_close(grad, weights * smooth)
    with pytest.raises(ValueError, match="at least 2"):
        FiniteScalarQuantiser((4, 1))


def test_the_tokenizer_learns_to_rebuild_and_uses_its_codes() -> None:
    torch.manual_seed(0)
    tokenizer = PatchTokenizer(4, levels=(8, 8), hidden=32)
    x = torch.randn(512, 4) @ torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, -1], [0] * 4, [0] * 4])
    optimiser = torch.optim.Adam(tokenizer.parameters(), lr=1e-2)
    for _ in range(200):
        rebuilt, ids = tokenizer(x)
        loss = (rebuilt - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1 * x.square().mean()
    assert codes_used(ids, 64) > 20


def test_blind_guesses_cost_the_logarithm_of_the_codes() -> None:
    method = tiny()
    nn.init.zeros_(method.decoder.out.weight)
    loss = method([View(images(24, 24), keys(4))])
    assert loss.parts["tokens"].item() == pytest.approx(math.log(36), rel=1e-5)
    assert codes_used(torch.zeros(5, 3, dtype=torch.int64), 36) == 1
    assert codes_used(torch.arange(36), 36).item() == pytest.approx(36)


def test_hidden_content_changes_no_logit_and_the_encoder_never_trains_the_tokenizer() -> None:
    method = tiny()
    data = images(24, 24)
    prediction, values, rebuilt = method.encode([View(data, keys(4))])[0]
    hidden = prediction.mask.hidden
    assert hidden.sum(1).tolist() == [13] * 4  # int(36 x 75 / 196)
    assert prediction.predicted.shape == (52, 36)
    tokens = Tokens(torch.where(hidden[..., None], values * 2 + 1, values), (6, 6))
    features = method.encoder.encode(tokens, prediction.mask)
    again = method.decoder(features, prediction.mask, tokens)
    assert torch.equal(prediction.predicted, again)
    loss = method.loss([(prediction, values, rebuilt)])
    pure = torch.autograd.grad(
        method.reconstruction(prediction.predicted, prediction.target, prediction.mask),
        list(method.tokenizer.parameters()),
        allow_unused=True,
        retain_graph=True,
    )
    assert pure == (None,) * len(pure)
    loss.total.backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("sides", "mask"), [((64,), "spans"), ((8, 16, 16), "tubes")])
def test_any_number_of_axes(sides: tuple[int, ...], mask: str) -> None:
    method = tiny(sides, mask=mask, mask_ratio=0.5, mask_block=1)
    method([View(images(*sides, rows=2), keys(2))]).total.backward()


def test_normalised_patches_have_codes_without_level_and_contrast() -> None:
    x = images(24, 24)
    for normalised, equal in ((True, True), (False, False)):
        method = tiny(norm_pixels=normalised, levels=(8, 8, 8))
        tokens = [method.encoder.tokenize(data) for data in (x, 3 * x + 1.5)]
        first, second = (method._codes(t, None) for t in tokens)
        assert ((first == second).float().mean() > 0.99) == equal
        values = method.encode([View(x, keys(4))])[0][1]
        assert (values.mean(-1).abs().max() < 1e-5) == equal


def test_codes_of_histograms_tell_edges_and_not_brightness() -> None:
    method = tiny(codes_of="histograms", cells=1)
    tokens = method.encoder.tokenize(images(24, 24))
    x = method._patches(tokens)
    assert x.shape == (4, 36, 2 * 9)  # channels x orientations
    brighter = Tokens(tokens.values + 3, tokens.grid)
    torch.testing.assert_close(method._patches(brighter), x, atol=1e-4, rtol=0)
    loss = method([View(images(24, 24), keys(4))])
    loss.total.backward()
    assert method.tokenizer.encoder[0].weight.grad.any()
    with pytest.raises(UserError, match="square patches whose side 3 cells divide"):
        tiny(codes_of="histograms", cells=3)
    with pytest.raises(ValueError, match="norm_pixels is for codes of pixels"):
        tiny(codes_of="histograms", norm_pixels=True)
    with pytest.raises(ValueError, match="codes_of must be pixels or histograms, got 'edges'"):
        tiny(codes_of="edges")
