"""data2vec against released losses and targets, and what must hold of any teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reference import OneView, draw, golden, keys
from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.methods.base import Step
from ssl_core.methods.data2vec import Data2Vec, _utterance
from ssl_core.methods.masked import Prediction, token_patch
from ssl_core.networks.block_outputs import block_outputs
from ssl_core.networks.decoders import ConvDecoder
from ssl_core.networks.masks import Mask, RandomMasker
from ssl_core.networks.vit import PatchTransformer
from ssl_core.objectives.targets import Each, average_layers, feature_std
from ssl_core.views import View

SMALL = {"decoder_dim": 16, "decoder_depth": 2, "decoder_groups": 4, "masks": 3, "mask_block": 2}


def tiny(sides: tuple[int, ...] = (16, 16), dim: int = 16, **options: Any) -> Data2Vec:
    torch.manual_seed(0)
    encoder = PatchTransformer(
        channels=3, sides=sides, patch=(4,) * len(sides), dim=dim, depth=3, heads=2, mlp_ratio=2
    )
    return Data2Vec(encoder, OneView(), **{**SMALL, **options})


def images(*sides: int, rows: int = 4) -> Tensor:
    return torch.randn(rows, 3, *sides, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("case", "last", "beta", "each"),
    [
        ("base", 4, 0.0, "instance"),
        ("top2", 2, 0.0, "instance"),
        ("smooth", 4, 0.5, "instance"),
        ("layernorm", 4, 0.0, "layer"),
    ],
)
def test_loss_and_gradient_equal_the_released_code(
    case: str, last: int, beta: float, each: Each
) -> None:
    """facebookresearch/fairseq, data2vec_audio.py; its layers are averaged without a last norm."""
    arrays = golden("data2vec/audio_loss")
    layers = list(arrays["teacher_layers"].transpose(1, 2))  # each [B, T, D]
    target = average_layers(layers[-last:], each=each, layer_norm=each == "layer")
    student = arrays["student"].clone().requires_grad_()
    proj = arrays["proj"].clone().requires_grad_()
    mask = Mask(arrays["mask"], "replace", (10,))
    predicted = student @ proj
    loss = tiny(beta=beta).reconstruction(predicted, target, mask)
    size = arrays[f"{case}_sample_size"]
    torch.testing.assert_close(loss * size, arrays[f"{case}_loss_sum"], atol=1e-8, rtol=0)
    (loss * size).backward()
    for got, name in ((student.grad, "student"), (proj.grad, "proj")):
        torch.testing.assert_close(got, arrays[f"{case}_grad_{name}"], atol=1e-8, rtol=0)
    for x, name in ((target, "target"), (predicted, "pred")):
        std = feature_std(x, mask.hidden)
        torch.testing.assert_close(std, arrays[f"{case}_{name}_var"], atol=1e-8, rtol=0)


def test_frame_and_utterance_terms_equal_the_released_code() -> None:
    """cwx-worst-one/EAT, EAT_pretraining.py; its utterance term is a sum over the rows."""
    arrays = golden("eat/utterance_frame_loss")
    target = average_layers(list(arrays["teacher_layers"][:, :, 1:]))
    torch.testing.assert_close(target, arrays["targets"], atol=1e-8, rtol=0)
    tokens = arrays["student_tokens"].clone().requires_grad_()
    decoded = arrays["decoder_out"].clone().requires_grad_()
    mask = Mask(arrays["mask"].bool(), "drop", (8,))
    rep = Prediction(decoded, target.repeat_interleave(3, dim=0), mask, None, tokens[:, 0])
    method = tiny(utterance=1.0)
    frames = method.reconstruction(decoded, rep.target, mask)
    torch.testing.assert_close(frames, arrays["frame_term"], atol=1e-8, rtol=0)
    rows, size = 6, arrays["sample_size"]
    utterance = rows * _utterance(rep)
    torch.testing.assert_close(utterance, arrays["utterance_term"], atol=1e-8, rtol=0)
    (frames + utterance / size).backward()
    # The released trainer divides the utterance sum by the number of hidden tokens, too.
    grad = tokens.grad[:, 0] * size / arrays["total"].numel()
    expected = arrays["grad_student_tokens"][:, 0]
    torch.testing.assert_close(grad / grad.norm(), expected / expected.norm())
    torch.testing.assert_close(decoded.grad, arrays["grad_decoder_out"], atol=1e-8, rtol=0)
    loss = method.loss([rep])
    torch.testing.assert_close(loss.parts["utterance"] * rows, arrays["utterance_term"])


def test_averaged_layers_have_unit_tokens_and_ignore_padding() -> None:
    layers = [draw(3, 10, 8, seed=seed).detach() for seed in range(4)]
    target = average_layers(layers)
    torch.testing.assert_close(target.mean(-1), torch.zeros(3, 10, dtype=torch.float64))
    variance = target.var(-1, unbiased=False)
    torch.testing.assert_close(variance, torch.ones_like(variance), atol=1e-3, rtol=0)
    valid = torch.arange(10) < torch.tensor([[10], [6], [1]])
    cut = average_layers([x[1:2, :6] for x in layers])
    noisy = [torch.where(valid[..., None], x, torch.full_like(x, torch.nan)) for x in layers]
    torch.testing.assert_close(average_layers(noisy, valid=valid)[1:2, :6], cut)


def test_block_outputs_are_those_of_the_forward_pass() -> None:
    encoder = tiny().encoder
    tokens = encoder.tokenize(images(16, 16))
    features, outputs = block_outputs(encoder, tokens)
    assert [tuple(x.shape) for x in outputs] == [(4, 16, 16)] * 3
    assert torch.equal(encoder.norm(outputs[-1]), features.tokens)
    assert not encoder.blocks[0]._forward_hooks
    with pytest.raises(UserError, match="no list of blocks"):
        block_outputs(torch.nn.Linear(2, 2), tokens)


def test_the_teacher_is_exact_gets_no_gradient_and_skips_bad_steps() -> None:
    method = tiny(momentum=0.5, end_momentum=0.5)
    loss = method([View(images(16, 16), keys(4))])
    loss.total.backward()
    assert [name for name, p in method.teacher.named_parameters() if p.grad is not None] == []
    trained = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert trained == []
    assert set(loss.metrics) == {"target_std", "prediction_std"}
    before = method.teacher.encoder.norm.weight.clone()
    with torch.no_grad():
        method.encoder.norm.weight.add_(2.0)
    method.after_step(Step(0, 10, torch.tensor(False)))
    assert torch.equal(method.teacher.encoder.norm.weight, before)
    method.after_step(Step(0, 10, torch.tensor(True)))
    torch.testing.assert_close(method.teacher.encoder.norm.weight, before + 1)


def test_masks_of_a_sample_share_its_target_and_average_to_their_mean() -> None:
    method = tiny().double()
    view = View(images(16, 16).double(), keys(4))
    rep = method.encode([view])[0]
    assert rep.predicted.shape == (12, 16, 16)
    grouped = rep.target.reshape(4, 3, 16, 16)
    assert torch.equal(grouped, grouped[:, :1].expand_as(grouped))
    assert len(rep.mask.hidden.unique(dim=0)) > 6
    single = []
    for number in range(3):
        rows = torch.arange(4) * 3 + number
        mask = Mask(rep.mask.hidden[rows], "drop", (4, 4))
        single.append(method.reconstruction(rep.predicted[rows], rep.target[rows], mask))
    torch.testing.assert_close(method.loss([rep]).total, torch.stack(single).mean())


def test_a_collapsed_prediction_costs_the_variance_of_the_target() -> None:
    method = tiny()
    rep = method.encode([View(images(16, 16), keys(4))])[0]
    rep.predicted = torch.zeros_like(rep.predicted)
    assert method.loss([rep]).total.item() == pytest.approx(16**0.5, rel=1e-3)


@pytest.mark.parametrize("sides", [(48,), (8, 12), (8, 8, 12)])
def test_any_number_of_axes(sides: tuple[int, ...]) -> None:
    method = tiny(sides, dim=24, mask_ratio=0.6)
    assert token_patch(method.encoder) == (4,) * len(sides)
    method([View(images(*sides, rows=2), keys(2))]).total.backward()
    missing = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_the_first_data2vec_replaces_hidden_tokens() -> None:
    method = tiny(decoder="linear", mask="random", mask_block=1, mask_ratio=0.6, masks=1, layers=2)
    assert method.encoder.mask_token is not None
    rep = method.encode([View(images(16, 16), keys(4))])[0]
    assert rep.mask.mode == "replace"
    method.loss([rep]).total.backward()
    assert method.encoder.mask_token.grad.abs().sum() > 0


def test_the_decoder_sees_hidden_places_as_one_vector() -> None:
    decoder = ConvDecoder(8, 5, dim=8, depth=2, groups=2)
    x = draw(2, 4, 8).detach().float()
    mask = RandomMasker(0.75)(keys(2), 16, grid=(4, 4))
    tokens = Tokens(torch.zeros(2, 16, 5), (4, 4))
    out = decoder(Features(x.mean(1), x), mask, tokens)
    assert out.shape == (2, 16, 5)
    with pytest.raises(ValueError, match="groups must divide"):
        ConvDecoder(8, 5, dim=10, groups=4)
