"""Keyed random numbers: pure functions of (seed, step, sample id, view, stream).

Nothing here holds state. A key is a 64-bit word; folding a label into it gives another key, and
the n-th number under a key is the SplitMix64 output for counter n (Steele, Lea & Flood 2014).
All arithmetic is on 64-bit integers, so uniform numbers, integers and permutations have the same
bits on CPU and CUDA, in any split of a batch, and inside `torch.compile`.

    rng = Rng.at(seed=0, step=7, ids=batch.ids)     # one key a sample
    rng = rng.fold("view", 1)                       # another key, same shape
    scale = rng.uniform("crop scale")               # [B]; the stream name is part of the key

Asking twice for the same stream gives the same numbers: name every draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Label = int | str


def _signed(word: int) -> int:
    """A 64-bit word as the signed integer torch stores it in."""
    word &= 0xFFFF_FFFF_FFFF_FFFF
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E37_79B9_7F4A_7C15)
_MIX_1 = _signed(0xBF58_476D_1CE4_E5B9)
_MIX_2 = _signed(0x94D0_49BB_1331_11EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own shift of signed words repeats the sign bit."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: a bijection of 64-bit words in which every bit moves every bit."""
    # In place where the tensor is this function's own: memory traffic is what it costs.
    x = _shift_right(x, 30).bitwise_xor_(x).mul_(_MIX_1)
    x = _shift_right(x, 27).bitwise_xor_(x).mul_(_MIX_2)
    return _shift_right(x, 31).bitwise_xor_(x)


def word(label: Label) -> int:
    """A label as a signed 64-bit word; strings by FNV-1a over their code points."""
    if isinstance(label, int):
        return _signed(label)
    value = 0xCBF2_9CE4_8422_2325
    for character in label:
        value = ((value ^ ord(character)) * 0x0000_0100_0000_01B3) & 0xFFFF_FFFF_FFFF_FFFF
    return _signed(value)


def _mix_int(x: int) -> int:
    """`_mix` for one Python integer (unsigned in, unsigned out)."""
    mask = 0xFFFF_FFFF_FFFF_FFFF
    x &= mask
    x = ((x ^ (x >> 30)) * (_MIX_1 & mask)) & mask
    x = ((x ^ (x >> 27)) * (_MIX_2 & mask)) & mask
    return x ^ (x >> 31)


def key_of(*labels: Label) -> int:
    """One signed 64-bit key from labels; `Rng` and `generator` start from such keys."""
    key = 0
    for label in labels:
        key = _mix_int(_mix_int(word(label) + _GOLDEN) ^ key)
    return _signed(key)


def generator(*labels: Label) -> np.random.Generator:
    """A NumPy generator for work on one record in a worker; a pure function of the labels."""
    return np.random.Generator(np.random.Philox(key=key_of(*labels) & 0xFFFF_FFFF_FFFF_FFFF))


@dataclass(frozen=True)
class Rng:
    """One key per sample: `key` is int64 `[B]`. Every draw has `B` as its leading dimension."""

    key: Tensor
    _drawn: Mapping[Label, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def at(cls, seed: int, step: int, ids: Tensor) -> Rng:
        """Keys for the samples `ids` (int64 `[B]`, on the device to draw on) of one step."""
        return cls(torch.full_like(ids, key_of("sample", seed, step))).fold(ids)

    @classmethod
    def cat(cls, parts: Sequence[Rng]) -> Rng:
        """The keys of several batches, one after another."""
        return cls(torch.cat([part.key for part in parts]))

    def __len__(self) -> int:
        return self.key.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Rng:
        return Rng(self.key[rows])

    @property
    def device(self) -> torch.device:
        return self.key.device

    def fold(self, *labels: Label | Tensor) -> Rng:
        """Other keys, made from these and the labels (a tensor label is int64 `[B]`)."""
        key = self.key
        for label in labels:
            if isinstance(label, Tensor):
                key = _mix(_mix(label.to(torch.int64) + _GOLDEN) ^ key)
            else:
                key = _mix(key ^ _folded(label))
        return Rng(key)

    def ahead(self, streams: Mapping[str, int]) -> Rng:
        """The same keys with `streams`, so many numbers a sample under each name, drawn in one go.

        Every draw from these keys gives the same numbers as before; those of `streams` are looked
        up. A dozen small draws are a dozen times as many calls as one, and calls are what they
        cost, most of all on a GPU.
        """
        # What is being traced has no use for a cache, and says so.
        entries = _entries.__wrapped__ if torch.compiler.is_compiling() else _entries
        folded, counters = entries(tuple(streams.items()), str(self.device))
        bits = _mix(_mix(self.key[:, None] ^ folded) + counters)  # [B, all numbers]
        parts = bits.split(list(streams.values()), dim=1)
        return Rng(self.key, dict(zip(streams, parts, strict=True)))

    def bits(self, stream: Label, *shape: int) -> Tensor:
        """64 random bits per entry, int64 `[B, *shape]`; not to be written to."""
        known, count = self._drawn.get(stream), math.prod(shape)
        if known is None or known.shape[1] < count:
            return self._fresh_bits(stream, *shape)
        return known[:, :count].reshape(len(self), *shape)

    def _fresh_bits(self, stream: Label, *shape: int) -> Tensor:
        """`bits` in memory of their own."""
        counter = torch.arange(1, math.prod(shape) + 1, device=self.key.device)
        key = self.fold(stream).key
        return _mix(key[:, None] + counter * _GOLDEN).reshape(len(self), *shape)

    def uniform(
        self,
        stream: Label,
        *shape: int,
        low: float | Tensor = 0.0,
        high: float | Tensor = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Uniform on [low, high), `[B, *shape]`; 24 random bits, 53 for float64."""
        bits = 53 if dtype == torch.float64 else 24
        unit = _shift_right(self.bits(stream, *shape), 64 - bits).to(dtype).mul_(2.0**-bits)
        if isinstance(low, float) and isinstance(high, float) and (low, high) == (0.0, 1.0):
            return unit
        return low + (high - low) * unit

    def uniform_at(self, stream: Label, rows: Tensor, places: Tensor, *shape: int) -> Tensor:
        """What `uniform(stream, L, *shape)` has at `[rows, places]`, float32 `[T, *shape]`.

        `rows` and `places` are int64 `[T]`; L does not matter, so nothing else is drawn.
        """
        count = math.prod(shape)
        counter = places[:, None] * count + torch.arange(1, count + 1, device=places.device)
        bits = _mix(self.fold(stream).key[rows][:, None] + counter * _GOLDEN)
        return (_shift_right(bits, 40).to(torch.float32) * 2.0**-24).reshape(len(rows), *shape)

    def normal(self, stream: Label, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal, `[B, *shape]`, by Box-Muller in float64."""
        bits = self.bits(stream, *shape)
        radius = _shift_right(bits, 32).to(torch.float64).add_(1).mul_(2.0**-32)
        angle = (bits & 0xFFFF_FFFF).to(torch.float64).mul_(2.0**-31 * math.pi)
        return ((-2 * radius.log()).sqrt() * angle.cos()).to(dtype)

    def noise(self, stream: Label, *shape: int) -> Tensor:
        """Normal in float32, `[B, *shape]`, for what is large: two numbers from each word.

        Both coordinates of Box-Muller, 24 bits each: up to 5.8 deviations, a third of the work of
        `normal`.
        """
        count = math.prod(shape)
        bits = self._fresh_bits(stream, (count + 1) // 2)
        radius = _shift_right(bits, 40).to(torch.float32).add_(1).mul_(2.0**-24)
        radius = radius.log_().mul_(-2).sqrt_()
        angle = bits.bitwise_and_(0xFF_FFFF).to(torch.float32).mul_(2.0**-23 * math.pi)
        pair = torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=1)
        return pair[:, :count].reshape(len(self), *shape)

    def grain(self, stream: Label, *shape: int) -> Tensor:
        """Normal in float32, `[B, *shape]`, for what is larger still: four numbers from each word.

        One of 2^16 values of equal probability, up to 4.3 deviations; a third of the work of
        `noise`.
        """
        count = math.prod(shape)
        parts = self.bits(stream, (count + 3) // 4).view(torch.int16)
        rows = parts.to(torch.int32).bitwise_and_(0xFFFF)
        drawn = _quantiles(str(self.device)).index_select(0, rows.flatten())
        return drawn.view(len(self), -1)[:, :count].reshape(len(self), *shape)

    def integers(
        self, stream: Label, *shape: int, low: int | Tensor = 0, high: int | Tensor
    ) -> Tensor:
        """Integers in [low, high), int64 `[B, *shape]`; ranges below 2^31.

        `low` and `high` may be tensors that broadcast against the result. The multiply-shift map
        is uneven by at most (high - low) / 2^32.
        """
        return low + _shift_right(_shift_right(self.bits(stream, *shape), 32) * (high - low), 32)

    def bernoulli(self, stream: Label, *shape: int, p: float | Tensor) -> Tensor:
        """True with probability `p`, bool `[B, *shape]`; what is certain takes no number."""
        if isinstance(p, int | float) and not 0 < p < 1:
            return torch.full((len(self), *shape), p > 0, device=self.device)
        return self.uniform(stream, *shape) < p

    def permutation(self, stream: Label, n: int) -> Tensor:
        """A permutation of 0..n-1 for each sample, int64 `[B, n]`."""
        return self.bits(stream, n).argsort(dim=1, stable=True)


def _folded(label: Label) -> int:
    """What a label adds to keys it is folded into, as a signed word."""
    return _signed(_mix_int(word(label) + _GOLDEN))


@lru_cache
def _entries(streams: tuple[tuple[str, int], ...], device: str) -> tuple[Tensor, Tensor]:
    """Of every number of these streams what its label and its counter add to a key, int64 `[N]`."""
    folded = [_folded(label) for label, count in streams for _ in range(count)]
    counters = [_signed(n * _GOLDEN) for _, count in streams for n in range(1, count + 1)]
    return torch.tensor(folded, device=device), torch.tensor(counters, device=device)


@lru_cache
def _quantiles(device: str) -> Tensor:
    """The normal's values at the middle of 2^16 equal shares, scaled to deviation 1."""
    at = (np.arange(1 << 16) + 0.5) / (1 << 16)
    values = np.array([*map(NormalDist().inv_cdf, at)])
    return torch.from_numpy((values / values.std()).astype(np.float32)).to(device)


def _mix_numpy(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """`_mix` on uint64 arrays."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return x ^ (x >> np.uint64(31))


def shuffled(index: np.ndarray, n: int, *labels: Label) -> np.ndarray:
    """Where a keyed permutation of 0..n-1 sends each `index` (int64 array), in O(1) memory.

    An eight-round Feistel network on the smallest even number of bits that holds n, walked until
    the value falls below n (Black & Rogaway 2002). No list of n numbers is ever made. Four rounds
    are visibly uneven for n below 30.
    """
    if n < 1 or index.min(initial=0) < 0 or index.max(initial=0) >= n:
        raise ValueError(f"shuffled: index must lie in [0, {n}), got {index!r}")
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    base = key_of("shuffle", *labels)
    keys = [np.uint64(_mix_int(base + number * _GOLDEN)) for number in range(1, 9)]

    def network(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & mask
        for key in keys:
            left, right = right, left ^ (_mix_numpy(right + key) & mask)
        return (left << np.uint64(half)) | right

    out = network(index.astype(np.uint64))
    outside = out >= n
    while outside.any():
        out[outside] = network(out[outside])
        outside = out >= n
    placed: np.ndarray = out.astype(np.int64)
    return placed
