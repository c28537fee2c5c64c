"""Transformer blocks, keyed stochastic depth, the vision transformer's bookkeeping, weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ssl_core.errors import UserError
from ssl_core.methods.masked import one_width
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import Mask
from ssl_core.networks.transformer import Attention, Block, blocks
from ssl_core.networks.vit import PatchTransformer
from ssl_core.networks.weights import load_weights
from ssl_core.rng import Rng


def keys(rows: int) -> Rng:
    return Rng.at(0, 0, torch.arange(rows))


def vit(**options: object) -> PatchTransformer:
    settings: dict[str, object] = {"channels": 3, "sides": (8, 8), "patch": (2, 2)}
    settings |= {"dim": 12, "depth": 2, "heads": 2}
    return PatchTransformer(**(settings | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("biased", [False, True])
def test_attention_equals_its_formula(biased: bool) -> None:
    attention = Attention(12, 3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bias = torch.randn(3, 5, 5, dtype=torch.float64) if biased else torch.zeros(3, 5, 5)
    q, k, v = (attention.qkv(x) @ torch.eye(36, dtype=torch.float64)).chunk(3, dim=-1)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        logits = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(4) + bias[h]
        heads.append(logits.softmax(-1) @ v[..., part])
    expected = attention.proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x, bias if biased else None), expected)


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_places_that_ask_get_what_all_would(qkv_bias: bool) -> None:
    block = Block(12, 3, qkv_bias=qkv_bias).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    at = torch.tensor([[3, 0, 4], [1, 2, 3]])
    rows = torch.arange(2)[:, None]
    alone, all_ = block(x, None, at), block(x)[rows, at]
    torch.testing.assert_close(alone, all_, rtol=1e-12, atol=1e-12)
    parameters = list(block.parameters())
    for a, b in zip(
        torch.autograd.grad(alone.square().sum(), parameters),
        torch.autograd.grad(all_.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide the width 12"):
        Attention(12, 5)


def test_drop_path_keeps_or_drops_whole_branches_by_key() -> None:
    block = Block(8, 2, drop_path=0.4)
    nn.init.zeros_(block.mlp.fc2.weight)
    nn.init.zeros_(block.mlp.fc2.bias)
    x = torch.randn(64, 3, 8, generator=torch.Generator().manual_seed(0))
    branch = block.attn(block.norm1(x))
    with dropout_keys(keys(64)):
        out = block(x)
    kept = keys(64).uniform("drop path block.attn path") >= 0.4
    torch.testing.assert_close(out, x + branch * (kept / 0.6)[:, None, None])
    assert 20 < kept.sum() < 55
    with dropout_keys(keys(64)[10:20]):
        assert torch.equal(block(x[10:20]), out[10:20])  # any split of the batch
    with pytest.raises(RuntimeError, match="one key per row: 64 rows, none keys"):
        block(x)
    torch.testing.assert_close(block.eval()(x), x + branch)


def test_drop_path_grows_linearly_and_layers_draw_apart() -> None:
    stack = blocks(5, 8, 2, drop_path=0.2)
    assert [block.drop_path1.p for block in stack] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    streams = [d.stream for b in stack for d in (b.drop_path1, b.drop_path2, b.drop1, b.drop2)]
    assert len(set(streams)) == len(streams)


def test_dropout_uses_no_global_random_state() -> None:
    model = vit(dropout=0.1, drop_path=0.3)
    x = torch.randn(4, 3, 8, 8)
    state = torch.get_rng_state()
    with dropout_keys(keys(4)):
        first, second = model(x).pooled, model(x).pooled
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, model.eval()(x).pooled)


def test_pooled_tokens_and_grid() -> None:
    x = torch.randn(2, 3, 8, 8)
    by_class, by_mean = vit()(x), vit(pool="mean", class_token=False)(x)
    assert by_class.prefix is not None
    assert torch.equal(by_class.pooled, by_class.prefix[:, 0])
    assert by_class.tokens is not None
    assert by_class.tokens.shape == (2, 16, 12)
    assert by_class.grid == (4, 4)
    assert by_mean.prefix is None
    assert by_mean.tokens is not None
    assert torch.equal(by_mean.pooled, by_mean.tokens.mean(1))


@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
def test_other_input_sizes_work_and_a_size_of_its_own_is_exact(positions: str) -> None:
    model = vit(positions=positions)
    assert model(torch.randn(1, 3, 4, 12)).grid == (2, 6)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(model(x).pooled, model.encode(model.tokenize(x)).pooled)


def test_sincos_positions_carry_no_parameter_and_a_zero_class_row() -> None:
    model = vit(positions="sincos")
    assert "pos_embed" not in dict(model.named_parameters())
    assert (model.state_dict()["pos_embed"][0, 0] == 0).all()


def test_the_mask_token_exists_only_where_it_is_used() -> None:
    model = vit()
    assert "mask_token" not in model.state_dict()
    mask = Mask(torch.ones(1, 16, dtype=torch.bool), "replace", (4, 4))
    tokens = model.tokenize(torch.zeros(1, 3, 8, 8))
    with pytest.raises(RuntimeError, match="enable_mask_token"):
        model.encode(tokens, mask)
    model.enable_mask_token()
    token = model.mask_token
    model.enable_mask_token()
    assert model.mask_token is token
    assert "mask_token" in model.state_dict()
    model.encode(tokens, mask)


def test_tokens_that_only_the_loss_counts_keep_their_content() -> None:
    """`Mask.replaced` separates what is shown from what is scored (BERT's 80/10/10)."""
    model = vit()
    model.enable_mask_token()
    tokens = model.tokenize(torch.randn(1, 3, 8, 8))
    hidden = torch.ones(1, 16, dtype=torch.bool)
    shown = model.encode(tokens, Mask(hidden, "replace", (4, 4), replaced=~hidden))
    assert torch.equal(shown.pooled, model.encode(tokens).pooled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "max"}, "pool must be one of cls, mean"),
        ({"positions": "rotary"}, "positions must be one of"),
        ({"class_token": False}, "needs class_token=True"),
        ({"heads": 5}, "5 heads do not divide"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vit(**options)


@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder."])
def test_weights_load_from_safetensors_also_when_wrapped(tmp_path: Path, prefix: str) -> None:
    source, target = vit(), vit()
    path = tmp_path / "model.safetensors"
    tensors = {prefix + name: value for name, value in source.state_dict().items()}
    save_file(tensors | {"head.weight": torch.zeros(2)}, path)
    report = load_weights(target, path)
    assert report.share == 1
    assert report.missing == []
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(target(x).pooled, source(x).pooled)


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path: Path) -> None:
    target = vit()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    path = tmp_path / "model.safetensors"
    save_file(vit(dim=24).state_dict(), path)
    with pytest.raises(UserError, match=r"0 of \d+ tensors matched.*another shape.*90%"):
        load_weights(target, path)
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
    half = {name: value for name, value in vit().state_dict().items() if "blocks.1" not in name}
    report = load_weights(target, half, minimum=0.3)
    assert report.missing == [name for name in before if "blocks.1" in name]
    assert not report.unused


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.pth", "not a .safetensors file"), ("model.safetensors", "cannot be read")],
)
def test_unreadable_weights_are_named(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match=message):
        load_weights(vit(), path)
    with pytest.raises(UserError, match="does not exist"):
        load_weights(vit(), tmp_path / "absent.safetensors")


def test_rows_pool_each_row_of_patches_by_itself() -> None:
    network = PatchTransformer(
        channels=1, sides=(8, 12), patch=(4, 4), dim=8, depth=1, heads=2, pool="rows"
    )
    assert (network.embed_dim, network.token_width) == (16, 8)
    x = torch.randn(3, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    whole = network(x)
    torch.testing.assert_close(
        whole.pooled, torch.cat([whole.tokens[:, :3].mean(1), whole.tokens[:, 3:].mean(1)], dim=1)
    )
    keep = torch.tensor([[0, 4, 1], [5, 3, 4], [2, 0, 1]])
    hidden = torch.ones(3, 6, dtype=torch.bool).scatter(1, keep, False)
    seen = network.encode(network.tokenize(x), Mask(hidden, "drop", (2, 3), keep))
    first = seen.tokens
    above = torch.stack([first[0, [0, 2]].mean(0), torch.zeros(8), first[2].mean(0)])
    below = torch.stack([first[0, 1], first[1].mean(0), torch.zeros(8)])
    torch.testing.assert_close(seen.pooled, torch.cat([above, below], dim=1))
    network.enable_mask_token()
    assert network.mask_token.shape == (1, 1, 8)
    replaced = network.encode(network.tokenize(x), Mask(hidden, "replace", (2, 3)))
    assert replaced.pooled.shape == (3, 16)


def test_blocks_pool_the_rows_after_every_block() -> None:
    sizes = {"channels": 1, "sides": (8, 12), "patch": (4, 4), "dim": 8, "heads": 2}
    torch.manual_seed(0)
    network = PatchTransformer(**sizes, depth=3, pool="blocks")
    assert (network.embed_dim, network.token_width) == (48, 8)
    x = torch.randn(2, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[0, 4, 1], [5, 3, 4]])
    hidden = torch.ones(2, 6, dtype=torch.bool).scatter(1, keep, False)
    mask = Mask(hidden, "drop", (2, 3), keep)
    for depth in (1, 2, 3):
        upto = PatchTransformer(**sizes, depth=depth, pool="rows")
        upto.load_state_dict(network.state_dict(), strict=False)
        part = slice(16 * (depth - 1), 16 * depth)
        torch.testing.assert_close(network(x).pooled[:, part], upto(x).pooled)
        seen, alone = (net.encode(net.tokenize(x), mask) for net in (network, upto))
        torch.testing.assert_close(seen.pooled[:, part], alone.pooled)
    torch.testing.assert_close(network(x).tokens, upto(x).tokens, atol=0, rtol=0)


def test_what_compares_pooled_with_tokens_refuses_rows() -> None:
    network = PatchTransformer(
        channels=1, sides=(8, 12), patch=(4, 4), dim=8, depth=1, heads=2, pool="rows"
    )
    with pytest.raises(UserError, match="16 and 8 wide here; set encoder"):
        one_width(network, "this")
    network.pool, network.embed_dim = "mean", 8
    one_width(network, "this")
