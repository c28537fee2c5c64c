"""Scaled dot-product attention: every way that it takes on a CPU, against float32."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.networks import attention as module
from ssl_core.networks.attention import attention


def packed(*shape: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values as they lie after one linear layer, not one after another."""
    rows, heads, count, width = shape
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(rows, count, 3, heads, width, generator=generator).to(dtype)
    return list(qkv.permute(2, 0, 3, 1, 4).requires_grad_())


def with_gradients(way: object, inputs: list[Tensor], **options: object) -> list[Tensor]:
    out = way(*inputs, **options)  # type: ignore[operator]
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad(out, inputs, weights)]


@pytest.mark.parametrize("count", [17, 385])
@pytest.mark.parametrize("kind", ["none", "added", "bool"])
def test_bfloat16_equals_float32(count: int, kind: str) -> None:
    """With and without a bias, short and long, and in float32 where torch is slow, in autocast."""
    inputs = packed(2, 2, count, 8, dtype=torch.bfloat16)
    bias = None if kind == "none" else torch.randn(2, 1, 1, count)
    if kind == "bool":
        bias = bias > 0
    products = mock.Mock(wraps=module._by_products)
    fused = mock.Mock(wraps=F.scaled_dot_product_attention)
    with (
        mock.patch.object(module, "_by_products", products),
        mock.patch.object(F, "scaled_dot_product_attention", fused),
        torch.autocast("cpu"),
    ):
        got = with_gradients(attention, inputs, bias=bias)
    assert products.called == (count == 17 and bias is None)
    if fused.called:
        (given, *_), _ = fused.call_args
        assert given.dtype == (torch.float32 if count == 17 else torch.bfloat16)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    want = with_gradients(F.scaled_dot_product_attention, exact, attn_mask=bias)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.float() - b).abs().max() <= 0.02 * b.abs().max()


def test_who_attends_to_nobody_gets_zeros() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = packed(1, 1, 4, 8, dtype=dtype)
        shown = torch.tensor([True, False, True, True])[:, None].expand(4, 4)
        assert (attention(q, k, v, shown)[0, 0, 1] == 0).all()


def test_there_may_be_no_rows_and_other_keys_than_queries() -> None:
    assert attention(*packed(0, 2, 5, 8, dtype=torch.bfloat16)).shape == (0, 2, 5, 8)
    q, k, v = packed(2, 2, 9, 8, dtype=torch.bfloat16)
    asked = q[..., :4, :]
    exact = F.scaled_dot_product_attention(asked.float(), k.float(), v.float())
    torch.testing.assert_close(attention(asked, k, v).float(), exact, rtol=0.02, atol=0.02)


def test_an_exported_program_takes_sequences_of_any_length() -> None:
    class Self(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return attention(x, x, x)

    x = torch.randn(2, 2, 10, 8).bfloat16()
    count = torch.export.Dim("count", min=2, max=4096)
    program = torch.export.export(Self(), (x,), dynamic_shapes=({2: count},))
    longer = torch.randn(2, 2, 100, 8).bfloat16()
    got, want = program.module()(longer), attention(longer, longer, longer)
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.02)


# 8192 weights and 32 keys are the least and the most of the way by whole arrays.
FEW = [(64, 4, 7, 8), (8, 1, 32, 8), (1, 160, 17, 3)]


@pytest.mark.parametrize("shape", FEW)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_few_keys_equal_the_fused_operator(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = packed(*shape, dtype=dtype)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    want = with_gradients(F.scaled_dot_product_attention, exact)
    with mock.patch.object(module._FewKeys, "apply", wraps=module._FewKeys.apply) as few:
        got = with_gradients(attention, inputs)
    assert few.called
    near = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 0.02}[dtype]
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).abs().max() <= near * b.abs().max()


def test_few_keys_of_other_number_than_queries_and_far_apart() -> None:
    q, k, v = packed(32, 4, 9, 8, dtype=torch.float32)
    asked = (1000 * q)[..., :8, :]
    torch.testing.assert_close(attention(asked, k, v), F.scaled_dot_product_attention(asked, k, v))
    assert all(x.isfinite().all() for x in with_gradients(attention, [asked, k, v]))


def test_few_or_small_keys_elsewhere_take_the_fused_operator() -> None:
    def ways(dtype: torch.dtype, *shape: int, learned: bool = True) -> bool:
        inputs = [x.detach().requires_grad_(learned) for x in packed(*shape, dtype=dtype)]
        with mock.patch.object(module._FewKeys, "apply", wraps=module._FewKeys.apply) as few:
            attention(*inputs)
        return bool(few.called)

    assert ways(torch.float32, 64, 4, 7, 8)
    assert not ways(torch.float32, 64, 4, 7, 8, learned=False)
    assert not ways(torch.float32, 8, 4, 7, 8)  # few weights in all
    assert not ways(torch.float32, 64, 4, 33, 8)
    assert not ways(torch.float16, 64, 4, 7, 8)
    assert not ways(torch.float32, 64, 4, 0, 8)
    with torch.autocast("cpu"):
        assert not ways(torch.float32, 64, 4, 7, 8)
        assert ways(torch.bfloat16, 64, 4, 7, 8)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_torch_func_may_transform_few_keys() -> None:
    q, k, v = (torch.randn(3, 16, 4, 17, 8) for _ in range(3))

    def by(way: Callable[..., Tensor]) -> Tensor:
        found = torch.func.vmap(torch.func.grad(lambda *x: way(*x).square().sum()))(q, k, v)
        assert isinstance(found, Tensor)
        return found

    torch.testing.assert_close(by(attention), by(F.scaled_dot_product_attention))


def test_few_keys_cannot_be_differentiated_twice() -> None:
    q, k, v = packed(64, 4, 7, 8, dtype=torch.float32)
    (slope,) = torch.autograd.grad(attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
