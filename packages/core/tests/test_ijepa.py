"""I-JEPA and V-JEPA against released predictor, losses and targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reference import OneView, golden, keys
from ssl_core.encoder import Tokens
from ssl_core.errors import UserError
from ssl_core.methods.base import Step
from ssl_core.methods.ijepa import IJEPA
from ssl_core.networks.multi_block import Blocks
from ssl_core.networks.predictors import LatentPredictor
from ssl_core.networks.vit import PatchTransformer
from ssl_core.networks.weights import load_weights
from ssl_core.objectives.targets import normalise_features
from ssl_core.views import View

PREDICTOR = {"predictor_dim": 12, "predictor_depth": 1, "predictor_heads": 2}


def tiny(sides: tuple[int, ...] = (24, 24), **options: Any) -> IJEPA:
    torch.manual_seed(0)
    encoder = PatchTransformer(
        channels=2,
        sides=sides,
        patch=(4,) * len(sides),
        dim=12,
        depth=2,
        heads=2,
        mlp_ratio=2,
        class_token=False,
        pool="mean",
    )
    return IJEPA(encoder, OneView(), **{**PREDICTOR, **options})


def clips(*sides: int, rows: int = 4) -> Tensor:
    return torch.randn(rows, 2, *sides, generator=torch.Generator().manual_seed(1))


def test_predictor_loss_and_gradients_equal_the_released_code() -> None:
    """facebookresearch/ijepa, vision_transformer.py: VisionTransformerPredictor; train.py."""
    arrays = golden("ijepa/predictor_loss")
    predictor = LatentPredictor(12, dim=8, depth=2, heads=2, mlp_ratio=2).double()
    weights = {
        name.removeprefix("w.")
        .replace("predictor_embed", "embed")
        .replace("predictor_blocks", "blocks")
        .replace("predictor_norm", "norm")
        .replace("predictor_proj", "out"): value
        for name, value in arrays.items()
        if name.startswith("w.") and "pos_embed" not in name
    }
    weights["mask_token"] = weights["mask_token"].flatten()
    assert load_weights(predictor, weights, minimum=1.0).missing == []
    context = arrays["context_tokens"].clone().requires_grad_()
    places = Blocks(arrays["context_idx"], arrays["target_idx"].transpose(0, 1), (4, 4))
    predicted = predictor(context, places)  # [B, T, M, D]; released rows are block-major
    flat = predicted.transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(flat, arrays["pred"], atol=1e-9, rtol=0)
    target = normalise_features(arrays["target_encoder_tokens"])
    rows = torch.arange(2)[:, None, None]
    target = target[rows, places.targets]
    torch.testing.assert_close(target.transpose(0, 1).flatten(0, 1), arrays["targets"])
    loss = tiny().loss([(predicted, target)]).total
    torch.testing.assert_close(loss, arrays["loss"], atol=1e-12, rtol=0)
    zero = tiny().loss([(torch.zeros_like(predicted), target)]).total
    torch.testing.assert_close(zero, arrays["loss_zero_prediction"], atol=1e-12, rtol=0)
    loss.backward()
    torch.testing.assert_close(context.grad, arrays["grad_context_tokens"], atol=1e-10, rtol=0)
    for name, parameter in [
        ("mask_token", predictor.mask_token),
        ("predictor_embed.weight", predictor.embed.weight),
        ("predictor_proj.weight", predictor.out.weight),
        ("predictor_blocks.0.attn.qkv.weight", predictor.blocks[0].attn.qkv.weight),
    ]:
        expected = arrays[f"g.{name}"].reshape(parameter.shape)
        torch.testing.assert_close(parameter.grad, expected, atol=1e-10, rtol=0)


def test_kinds_of_blocks_weigh_the_same_as_released() -> None:
    """facebookresearch/jepa, app/vjepa/train.py: loss_fn; a mean of each kind's own mean."""
    arrays = golden("vjepa/loss")
    target = normalise_features(arrays["target_features"])
    predicted = [arrays[f"pred{kind}"].clone().requires_grad_() for kind in (0, 1)]
    rows = torch.arange(2)[:, None]
    pairs = []
    for kind in (0, 1):
        wanted = target[rows, arrays[f"mask{kind}"]]
        torch.testing.assert_close(wanted, arrays[f"target{kind}"], atol=1e-10, rtol=0)
        pairs.append((predicted[kind].unsqueeze(1), wanted.unsqueeze(1)))
    loss = tiny(beta=0.0).loss(pairs).total
    torch.testing.assert_close(loss, arrays["loss_exp1"], atol=1e-10, rtol=0)
    loss.backward()
    for kind in (0, 1):
        got = predicted[kind].grad
        torch.testing.assert_close(got, arrays[f"grad{kind}_exp1"], atol=1e-10, rtol=0)


def test_targets_and_context_stay_apart_and_gradients_go_where_they_belong() -> None:
    method = tiny()
    data = clips(24, 24)
    (predicted, target), *_ = method.encode([View(data, keys(4))])
    assert predicted.shape == target.shape
    assert target.requires_grad is False
    torch.testing.assert_close(target.mean(-1), torch.zeros_like(target[..., 0]), atol=1e-5, rtol=0)
    loss = method.loss([(predicted, target)])
    loss.total.backward()
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []
    assert [n for n, p in method.teacher.named_parameters() if p.grad is not None] == []
    places = method.maskers[0](keys(4).fold("blocks", 0), (6, 6), step=0)
    tokens = method.encoder.tokenize(data)
    seen = method.encoder.encode(tokens, places.mask()).tokens
    hidden = places.mask().hidden.unsqueeze(-1)
    other = Tokens(torch.where(hidden, tokens.values * 3 + 1, tokens.values), tokens.grid)
    assert torch.equal(method.encoder.encode(other, places.mask()).tokens, seen)


def test_the_teacher_stands_still_at_momentum_one_and_after_bad_steps() -> None:
    method = tiny(momentum=0.0, end_momentum=1.0)
    with torch.no_grad():
        method.encoder.norm.weight.add_(1.0)
    before = method.teacher.encoder.norm.weight.clone()
    method.after_step(Step(0, 10, torch.tensor(False)))
    method.after_step(Step(9, 10, torch.tensor(True)))
    assert torch.equal(method.teacher.encoder.norm.weight, before)
    method.after_step(Step(0, 10, torch.tensor(True)))
    assert torch.equal(method.teacher.encoder.norm.weight, method.encoder.norm.weight)


@pytest.mark.parametrize(
    ("sides", "kinds"),
    [
        ((96,), [{"targets": 2}]),
        ((24, 32), [{}]),
        (
            (8, 24, 24),
            [
                {"targets": 3, "scale": [0.15, 0.15], "context_scale": None, "union": True},
                {"targets": 1, "scale": [0.6, 0.6], "context_scale": None, "keep": 0.2},
            ],
        ),
    ],
)
def test_any_number_of_axes(sides: tuple[int, ...], kinds: list[dict[str, Any]]) -> None:
    method = tiny(sides, blocks=kinds, beta=0.0)
    reps = method.encode([View(clips(*sides, rows=2), keys(2))])
    assert len(reps) == len(kinds)
    method.loss(reps).total.backward()


def test_padded_inputs_are_refused() -> None:
    method = tiny()
    method.encoder.tokenize = lambda data: Tokens(
        data, (6, 6), valid=torch.ones(2, 36, dtype=torch.bool)
    )
    with pytest.raises(UserError, match="equal size"):
        method([View(torch.zeros(2, 36, 32), keys(2))])
    with pytest.raises(ValueError, match="at least one kind"):
        tiny(blocks=[])
