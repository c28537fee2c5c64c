"""Huge pages: which are asked for, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor

from ssl_core.networks import pages

Calls = list[tuple[int, int, int]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the system is asked, which agrees to everything."""
    asked: Calls = []

    def madvise(*call: int) -> int:
        asked.append(call)  # type: ignore[arg-type]
        return 0

    monkeypatch.setattr(pages, "_madvise", lambda: madvise)
    return asked


def within(tensor: Tensor, calls: Calls) -> bool:
    """Whether both ends lie on pages asked for."""
    size = tensor.numel() * tensor.element_size()
    ends = (tensor.data_ptr(), tensor.data_ptr() + size - 1)
    return all(any(at <= end < at + length for at, length, _ in calls) for end in ends)


def test_pages_of_all_tensors_are_asked_for_once_and_in_order(calls: Calls) -> None:
    one = torch.zeros(1 << 20)
    both = [one, one[:10], torch.zeros(1000, 1000).T]
    pages.on_huge_pages(both)
    assert all(within(x, calls) for x in both)
    advised = [at for at, _, advice in calls if advice == pages._MADV_HUGEPAGE]
    collapsed = [at for at, _, advice in calls if advice == pages._MADV_COLLAPSE]
    assert advised == collapsed == sorted(set(advised))
    assert all(at % pages._PAGE == 0 for at in advised)


@pytest.mark.parametrize(
    "make",
    [
        list,
        lambda: [torch.zeros(0), torch.zeros(5)],
        lambda: [torch.zeros(9 << 20).to("meta")],
    ],
    ids=["nothing", "little", "elsewhere"],
)
def test_nothing_is_asked_for_what_fills_no_pages(
    calls: Calls, make: Callable[[], list[Tensor]]
) -> None:
    pages.on_huge_pages(make())
    assert not calls


def test_contents_and_addresses_stay() -> None:
    x = torch.randn(3, 1 << 20)
    before, at = x.clone(), x.data_ptr()
    pages.on_huge_pages([x])
    assert torch.equal(x, before)
    assert x.data_ptr() == at


def test_the_user_may_turn_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    assert pages._madvise.__wrapped__() is None
    with mock.patch.object(pages.sys, "platform", "darwin"):
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
        assert pages._madvise.__wrapped__() is None
