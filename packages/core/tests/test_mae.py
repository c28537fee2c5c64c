"""MAE against the released code and the statements of its paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reference import GOLDEN, OneView, keys
from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.methods.mae import MAE
from ssl_core.networks.decoders import TransformerDecoder
from ssl_core.networks.masks import Mask, RandomMasker, mask_from_order
from ssl_core.networks.vit import PatchTransformer
from ssl_core.networks.weights import load_weights
from ssl_core.views import View


def tiny(**options: Any) -> MAE:
    """An MAE on 16-pixel images in 4 x 4 patches of 4 pixels."""
    encoder = PatchTransformer(
        channels=3, sides=(16, 16), patch=(4, 4), dim=16, depth=2, heads=2, mlp_ratio=2
    )
    return MAE(encoder, OneView(), decoder_dim=8, decoder_depth=1, decoder_heads=2, **options)


@pytest.fixture
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "mae" / "tiny_forward.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture
def released(golden: dict[str, Tensor]) -> MAE:
    """Our modules with the released weights; the mask follows the released noise."""
    encoder = PatchTransformer(
        channels=3,
        sides=(16, 16),
        patch=(4, 4),
        dim=16,
        depth=2,
        heads=2,
        mlp_ratio=2,
        positions="sincos",
    )
    method = MAE(encoder, OneView())
    method.decoder = TransformerDecoder(
        16, 48, dim=8, depth=1, heads=2, mlp_ratio=2, hidden_only=True
    )
    method.double()
    weights = {name[2:]: value for name, value in golden.items() if name.startswith("w.")}
    assert load_weights(encoder, weights, minimum=1.0).missing == []
    decoder = {
        name.replace("decoder_blocks", "blocks")
        .replace("decoder_norm", "norm")
        .replace("decoder_embed", "embed")
        .replace("decoder_pred", "out"): value
        for name, value in weights.items()
        if name.startswith("decoder_")
    }
    decoder["mask_token"] = weights["mask_token"].flatten()
    assert load_weights(method.decoder, decoder, minimum=1.0).missing == []
    order = golden["noise"].argsort(dim=1)
    method.masker = lambda rng, count, *, grid, maskable: mask_from_order(
        order, 4, mode="drop", grid=grid
    )
    return method


def test_forward_and_gradients_equal_the_released_code(
    released: MAE, golden: dict[str, Tensor]
) -> None:
    """facebookresearch/mae, models_mae.py: MaskedAutoencoderViT.forward."""
    prediction = released.encode([View(golden["imgs"], keys(2))])[0]
    assert torch.equal(prediction.mask.hidden, golden["mask"].bool())
    assert prediction.mask.ids_keep is not None
    assert torch.equal(prediction.mask.ids_keep, golden["ids_keep"])
    hidden = prediction.mask.concealed  # all that we compute of what was released
    torch.testing.assert_close(prediction.target, hidden(golden["target_norm"]))
    torch.testing.assert_close(prediction.predicted, hidden(golden["pred"]), atol=1e-9, rtol=0)
    prediction.predicted.retain_grad()
    loss = released.loss([prediction])
    torch.testing.assert_close(loss.total, golden["loss"], atol=1e-12, rtol=0)
    loss.total.backward()
    moved = hidden(golden["grad_pred"])
    torch.testing.assert_close(prediction.predicted.grad, moved, atol=1e-12, rtol=0)
    encoder, decoder = released.encoder, released.decoder
    for name, parameter in [
        ("cls_token", encoder.cls_token),
        ("patch_embed.proj.weight", encoder.patch_embed.proj.weight),
        ("blocks.0.attn.qkv.weight", encoder.blocks[0].attn.qkv.weight),
        ("blocks.1.mlp.fc1.weight", encoder.blocks[1].mlp.fc1.weight),
        ("mask_token", decoder.mask_token),
        ("decoder_embed.weight", decoder.embed.weight),
        ("decoder_pred.weight", decoder.out.weight),
    ]:
        expected = golden[f"g.{name}"].reshape(parameter.shape)
        torch.testing.assert_close(parameter.grad, expected, atol=1e-10, rtol=0)


def test_latent_and_input_gradient_equal_the_released_code(
    released: MAE, golden: dict[str, Tensor]
) -> None:
    images = golden["imgs"].clone().requires_grad_()
    tokens = released.encoder.tokenize(images)
    mask = released.masker(keys(2), 16, grid=(4, 4), maskable=None)
    features = released.encoder.encode(tokens, mask)
    assert features.tokens is not None
    latent = torch.cat([features.prefix, features.tokens], dim=1)
    torch.testing.assert_close(latent, golden["latent"], atol=1e-9, rtol=0)
    released.decoder.hidden_only = False
    everywhere = released.decoder(features, mask, tokens)
    torch.testing.assert_close(everywhere, golden["pred"], atol=1e-9, rtol=0)
    released.decoder.hidden_only = True
    predicted = released.decoder(features, mask, tokens)
    target = released.target(Tokens(golden["patches"]), mask)
    released.reconstruction(predicted, target, mask).backward()
    torch.testing.assert_close(images.grad, golden["grad_imgs_input_side"], atol=1e-10, rtol=0)


def test_pixel_targets_and_the_zero_line_equal_the_released_code(
    golden: dict[str, Tensor],
) -> None:
    tokens = Tokens(golden["patches"], (4, 4))
    mask = mask_from_order(golden["noise"].argsort(dim=1), 4, mode="drop")
    raw, normalised = tiny(norm_pixels=False), tiny()
    predicted = mask.concealed(golden["pred"])
    loss = raw.reconstruction(predicted, raw.target(tokens, mask), mask)
    torch.testing.assert_close(loss, golden["loss_raw_pixels"])
    zero = torch.zeros_like(predicted)
    loss = normalised.reconstruction(zero, normalised.target(tokens, mask), mask)
    torch.testing.assert_close(loss, golden["loss_zero_prediction"])
    assert abs(loss.item() - 47 / 48) < 1e-5


def test_a_zero_prediction_costs_the_line_of_no_learning() -> None:
    method = tiny()
    nn.init.zeros_(method.decoder.out.weight)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loss = method([View(images, keys(4))])
    assert loss.total.item() == pytest.approx(47 / 48, abs=1e-4)
    assert loss.parts["reconstruction"] == loss.total


def test_hidden_tokens_alone_are_predicted_and_every_parameter_learns() -> None:
    method = tiny()
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    prediction = method.encode([View(images, keys(4))])[0]
    prediction.predicted.retain_grad()
    method.loss([prediction]).total.backward()
    grad = prediction.predicted.grad
    assert grad is not None
    assert grad.shape == (4, 12, 48)
    assert (grad != 0).any(-1).all()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("mode", ["drop", "replace"])
@pytest.mark.parametrize("positions", ["learned", "sincos", "relative", "none"])
def test_the_encoder_never_sees_hidden_pixels(mode: str, positions: str) -> None:
    encoder = PatchTransformer(
        channels=2, sides=(8, 8), patch=(2, 2), dim=8, depth=2, heads=2, positions=positions
    )
    encoder.enable_mask_token()
    x = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = encoder.tokenize(x)
    mask = RandomMasker(0.5, mode=mode)(keys(3), 16, grid=(4, 4))
    seen = encoder.encode(tokens, mask)
    other = torch.where(mask.hidden[..., None], tokens.values * -3 + 1, tokens.values)
    again = encoder.encode(Tokens(other, tokens.grid), mask)
    assert torch.equal(seen.pooled, again.pooled)
    assert torch.equal(seen.tokens, again.tokens)
    visible = torch.where(mask.hidden[..., None], tokens.values, tokens.values * -3 + 1)
    changed = encoder.encode(Tokens(visible, tokens.grid), mask)
    assert not torch.allclose(seen.tokens, changed.tokens)


def test_dropping_equals_encoding_a_subset_in_place() -> None:
    """Kept tokens of a drop mask give what attention limited to them gives in place."""
    encoder = PatchTransformer(
        channels=1, sides=(8, 8), patch=(2, 2), dim=8, depth=2, heads=2, positions="relative"
    ).double()
    nn.init.normal_(encoder.rel_pos_bias.relative_position_bias_table)
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = RandomMasker(0.75)(keys(2), 16, grid=(4, 4))
    dropped = encoder.encode(encoder.tokenize(x), mask)
    bias = encoder.rel_pos_bias((4, 4), 1).expand(2, -1, -1, -1)
    away = torch.cat([torch.zeros(2, 1, dtype=torch.bool), mask.hidden], dim=1)
    bias = bias.masked_fill(away[:, None, None], float("-inf"))
    hidden = encoder._embedded(encoder.tokenize(x), None)
    hidden = torch.cat([encoder.cls_token.expand(2, -1, -1), hidden], dim=1)
    for block in encoder.blocks:
        hidden = block(hidden, bias)
    expected = mask.keep(encoder.norm(hidden)[:, 1:])
    torch.testing.assert_close(dropped.tokens, expected)


@pytest.mark.parametrize(
    ("sides", "patch"), [((12,), (3,)), ((8, 12), (4, 4)), ((4, 4, 8), (2, 2, 4))]
)
def test_any_number_of_axes_and_no_class_token(
    sides: tuple[int, ...], patch: tuple[int, ...]
) -> None:
    encoder = PatchTransformer(
        channels=2,
        sides=sides,
        patch=patch,
        dim=12,
        depth=1,
        heads=2,
        class_token=False,
        pool="mean",
    )
    method = MAE(encoder, OneView(), decoder_dim=12, decoder_depth=1, decoder_heads=2)
    data = torch.randn(2, 2, *sides, generator=torch.Generator().manual_seed(0))
    prediction = method.encode([View(data, keys(2))])[0]
    assert prediction.predicted.shape == prediction.target.shape
    method.loss([prediction]).total.backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("prefix", [0, 2])
def test_decoding_hidden_tokens_alone_equals_leaving_out_the_others(
    depth: int, prefix: int
) -> None:
    decoder = TransformerDecoder(6, 5, dim=8, depth=depth, heads=2, hidden_only=True).double()
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 6, 6, generator=draw, dtype=torch.float64)
    first = torch.randn(3, prefix, 6, generator=draw, dtype=torch.float64) if prefix else None
    mask = RandomMasker(0.5)(keys(3), 12, grid=(3, 4))
    content = Tokens(torch.zeros(3, 12, 5), (3, 4))
    answers = []
    for hidden_only in (True, False):
        decoder.hidden_only = hidden_only
        decoder.zero_grad()
        x = tokens.clone().requires_grad_()
        out = decoder(Features(x.mean(1), x, prefix=first), mask, content)
        out = out if hidden_only else mask.concealed(out)
        out.square().sum().backward()
        answers.append([out, x.grad, *(p.grad.clone() for p in decoder.parameters())])
    for alone, among in zip(*answers, strict=True):
        torch.testing.assert_close(alone, among)


def test_decoding_hidden_tokens_alone_needs_their_list_and_a_block() -> None:
    with pytest.raises(ValueError, match="depth of at least 1, got 0"):
        TransformerDecoder(6, 5, dim=8, depth=0, heads=2, hidden_only=True)
    decoder = TransformerDecoder(6, 5, dim=8, depth=1, heads=2, hidden_only=True)
    mask = RandomMasker(0.5, mode="replace")(keys(2), 8, grid=(2, 4))
    x = torch.zeros(2, 8, 6)
    with pytest.raises(ValueError, match="use one in drop mode"):
        decoder(Features(x.mean(1), x), mask, Tokens(torch.zeros(2, 8, 5), (2, 4)))


def test_sets_with_coordinates_decode_like_the_grid_they_came_from() -> None:
    decoder = TransformerDecoder(6, 5, dim=8, depth=2, heads=2)
    tokens = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    mask = RandomMasker(0.5)(keys(2), 8, grid=(2, 4))
    features = Features(tokens.mean(1), tokens)
    content = torch.zeros(2, 8, 5)
    coords = torch.tensor([[i, j] for i in range(2) for j in range(4)]).expand(2, -1, -1)
    on_grid = decoder(features, mask, Tokens(content, (2, 4)))
    as_set = decoder(features, mask, Tokens(content, coords=coords))
    torch.testing.assert_close(as_set, on_grid)
    with pytest.raises(ValueError, match="without grid or coords"):
        decoder(features, mask, Tokens(content))


def test_padding_does_not_reach_the_decoder_of_a_set() -> None:
    decoder = TransformerDecoder(6, 5, dim=8, depth=2, heads=2, fill=False)
    valid = torch.arange(6) < torch.tensor([[6], [4]])
    mask = Mask(torch.zeros(2, 6, dtype=torch.bool), "replace")
    x = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0))
    content = Tokens(torch.zeros(2, 6, 5), valid=valid)
    first = decoder(Features(x.mean(1), x), mask, content)
    noisy = torch.where(valid[..., None], x, x * 5 + 1)
    again = decoder(Features(x.mean(1), noisy), mask, content)
    assert torch.equal(first[valid], again[valid])


class Pooling(nn.Module):
    """An encoder without tokens."""

    embed_dim = 4

    def forward(self, data: Tensor) -> Features:
        return Features(data.flatten(1)[:, :4])


def test_other_encoders_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"got Pooling; choose a ViT"):
        MAE(Pooling(), OneView())
