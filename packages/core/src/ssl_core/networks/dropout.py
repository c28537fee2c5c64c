"""Dropout keyed by sample: the same mask whatever the batch split, world size or device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from torch import Tensor, nn

from ssl_core.networks.packing import Packing, current_packing, packed
from ssl_core.rng import Rng

_KEYS: ContextVar[Rng | None] = ContextVar("dropout keys", default=None)


@contextlib.contextmanager
def dropout_keys(rng: Rng) -> Iterator[None]:
    """While active, every `KeyedDropout` draws from `rng` (one key a row of its input)."""
    token = _KEYS.set(rng)
    try:
        yield
    finally:
        _KEYS.reset(token)


def same_keys() -> contextlib.AbstractContextManager[None]:
    """A context with the keys (and the packing) of now, for work that is done again later
    (recomputed blocks)."""
    rng, packing = _KEYS.get(), current_packing()
    if packing is None:
        return contextlib.nullcontext() if rng is None else dropout_keys(rng)
    return _both(rng, packing)


@contextlib.contextmanager
def _both(rng: Rng | None, packing: Packing) -> Iterator[None]:
    with packed(packing), contextlib.nullcontext() if rng is None else dropout_keys(rng):
        yield


def current_keys(rows: int) -> Rng:
    """The keys of the rows being encoded; `RuntimeError` outside `dropout_keys`."""
    rng = _KEYS.get()
    if rng is None or len(rng) != rows:
        have = "none" if rng is None else f"{len(rng)}"
        raise RuntimeError(f"dropout needs one key per row: {rows} rows, {have} keys")
    return rng


class KeyedDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose mask is a pure function of the sample's key.

    `stream` must differ between the layers of a network; `key_dropout` numbers them. Raises
    `RuntimeError` in training mode outside `dropout_keys`, rather than fall back to global state.
    """

    def __init__(self, p: float, *, stream: str) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability must lie in [0, 1), got {p}")
        self.p = p
        self.stream = stream

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        packing = current_packing()
        name = f"dropout {self.stream}"
        if packing is None:
            noise = current_keys(x.shape[0]).uniform(name, *x.shape[1:])
        else:  # the same numbers for the same tokens as in a padded batch
            rng = current_keys(packing.valid.shape[0])
            noise = rng.uniform_at(name, packing.rows, packing.places, *x.shape[2:])[None]
        kept = noise >= self.p
        return x * kept.to(x.dtype).div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}, stream={self.stream!r}"


class DropPath(KeyedDropout):
    """Stochastic depth (Huang et al. 2016): a whole residual branch of a sample, or nothing."""

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        kept = current_keys(x.shape[0]).uniform(f"drop path {self.stream}") >= self.p
        scale = kept.to(x.dtype).div_(1 - self.p)
        return x * scale.reshape(-1, *[1] * (x.dim() - 1))


def key_dropout(module: nn.Module) -> int:
    """Replaces every `nn.Dropout` inside `module` by a keyed one, in place; returns how many."""
    found = [
        (parent, name, child, f"{prefix}.{name}")
        for prefix, parent in module.named_modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Dropout)
    ]
    for parent, name, child, path in found:
        setattr(parent, name, KeyedDropout(child.p, stream=path))
    return len(found)
