"""MixMIM against released attention and un-mixing, and what must never mix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reference import OneView, golden, keys
from ssl_core.encoder import Tokens
from ssl_core.errors import UserError
from ssl_core.methods.mixmim import MixMIM, mix, partners
from ssl_core.networks.masks import Mask
from ssl_core.networks.transformer import Attention
from ssl_core.networks.vit import PatchTransformer, same_source
from ssl_core.views import View

DECODER = {"mask_unit": 1, "decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}


def tiny(positions: str = "learned", **options: object) -> MixMIM:
    torch.manual_seed(0)
    encoder = PatchTransformer(
        channels=2,
        sides=(16, 16),
        patch=(4, 4),
        dim=12,
        depth=2,
        heads=2,
        class_token=False,
        pool="mean",
        positions=positions,
    )
    return MixMIM(encoder, OneView(), **{**DECODER, **options})


def images(rows: int) -> Tensor:
    return torch.randn(rows, 2, 16, 16, generator=torch.Generator().manual_seed(1))


def test_attention_within_a_source_equals_the_released_code() -> None:
    """Sense-X/MixMIM, models_mixmim.py: WindowAttention with a mask of sources."""
    arrays = golden("mixmim/window_attention_group_mask")
    weights = {name[2:]: value for name, value in arrays.items() if name.startswith("w.")}
    attention = Attention(8, 2).double()
    attention.load_state_dict({n: w for n, w in weights.items() if n in attention.state_dict()})
    table, index = weights["relative_position_bias_table"], weights["relative_position_index"]
    bias = table[index.long().flatten()].reshape(6, 6, 2).permute(2, 0, 1)
    hidden = arrays["mask"][..., 0].bool()
    got = attention(arrays["x"], same_source(hidden, bias))
    torch.testing.assert_close(got, arrays["y"], atol=1e-9, rtol=0)
    got = attention(arrays["x"], bias.unsqueeze(0))
    torch.testing.assert_close(got, arrays["y_no_mask"], atol=1e-9, rtol=0)


def test_mixing_and_its_targets_are_those_of_the_released_code() -> None:
    arrays = golden("mixmim/tiny_forward")
    hidden = arrays["mask_s4"][..., 0].bool().expand(4, -1)  # [4, 4], shared by the batch
    flip = torch.arange(4).flip(0)
    own, other = arrays["pred_first48"].chunk(2)  # decoded with the own, then the other part kept
    # Released: each image's prediction is collected from the two mixtures that hide it.
    unmixed = torch.where(hidden[..., None], own, other[flip])
    torch.testing.assert_close(unmixed, arrays["unmixed_first48"])
    released = (unmixed - arrays["target_first48"]).square().sum()
    mixed, target = mix(arrays["target_first48"], hidden, flip)
    predicted = torch.where(hidden[..., None], own, other)
    torch.testing.assert_close((predicted - target).square().sum(), released)
    assert torch.equal(torch.where(hidden[..., None], target, mixed), arrays["target_first48"])


def test_the_partner_shows_the_complement() -> None:
    method = tiny()
    x = images(4)
    prediction = method.encode([View(x, keys(4))])[0]
    assert prediction.mask.hidden.all()
    assert partners(4, torch.device("cpu")).tolist() == [1, 0, 3, 2]
    assert partners(5, torch.device("cpu")).tolist() == [1, 0, 3, 2, 0]
    with pytest.raises(UserError, match="two samples"):
        partners(1, torch.device("cpu"))
    tokens = method.encoder.tokenize(x).values
    hidden = torch.rand(4, 16) < 0.5
    hidden[1], hidden[3] = hidden[0], hidden[2]
    mixed, target = mix(tokens, hidden, partners(4, torch.device("cpu")))
    assert torch.equal(mixed[1], target[0])
    assert torch.equal(mixed[0], target[1])


@pytest.mark.parametrize("positions", ["learned", "relative"])
def test_tokens_of_one_input_never_reach_the_other(positions: str) -> None:
    encoder = tiny(positions).encoder
    tokens = encoder.tokenize(images(3))
    hidden = torch.rand(3, 16, generator=torch.Generator().manual_seed(2)) < 0.5
    mask = Mask(hidden, "mix", (4, 4))
    seen = encoder.encode(tokens, mask).tokens
    other = torch.where(hidden[..., None], tokens.values * 3 - 1, tokens.values)
    changed = encoder.encode(Tokens(other, tokens.grid), mask).tokens
    assert torch.equal(seen[~hidden], changed[~hidden])
    assert not torch.allclose(seen[hidden], changed[hidden])


def test_every_parameter_learns_and_zero_costs_the_line_of_no_learning() -> None:
    method = tiny()
    method([View(images(5), keys(5))]).total.backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []
    nn.init.zeros_(method.decoder.out.weight)
    loss = method([View(images(4), keys(4))]).total
    assert loss.item() == pytest.approx(31 / 32, abs=1e-4)


def test_encoders_with_a_class_token_are_refused() -> None:
    encoder = PatchTransformer(channels=2, sides=(16, 16), patch=(4, 4), dim=8, depth=1, heads=2)
    with pytest.raises(UserError, match="without class token"):
        MixMIM(encoder, OneView())
    tokens = encoder.tokenize(images(2))
    with pytest.raises(ValueError, match="class_token=False"):
        encoder.encode(tokens, Mask(torch.zeros(2, 16, dtype=torch.bool), "mix", (4, 4)))
