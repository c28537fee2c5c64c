"""Turning frames into codes: Gumbel product codes, random projection, k-means, directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import all_sum, gather
from ssl_core.rng import generator


class GumbelQuantiser(nn.Module):
    """wav2vec 2.0's product quantiser: one of V learned codes in each of G groups.

    `[B, M, in_dim]` to quantised `[B, M, dim]`, the groups' probabilities `[B, M, G, V]` (without
    noise and temperature) and the codes chosen, int64 `[B, M, G]`. With `noise` (Gumbel, `[B, M,
    G, V]`) the choice is random and its gradient that of the softmax at `temperature`; without, it
    is the likeliest code.
    """

    def __init__(self, in_dim: int, dim: int, *, groups: int, codes: int) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"{groups} groups do not divide the width {dim}")
        self.groups, self.codes = groups, codes
        self.logits = nn.Linear(in_dim, groups * codes)
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.codebook = nn.Parameter(torch.empty(groups, codes, dim // groups).uniform_())

    def forward(
        self, x: Tensor, *, temperature: float = 1.0, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        # float32 also under autocast: codes must not depend on bfloat16 rounding.
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(self.codebook.dtype)
            logits = self.logits(wide).unflatten(-1, (self.groups, self.codes))
            noisy = logits if noise is None else (logits + noise) / temperature
            chosen = noisy.argmax(-1)
            hard = F.one_hot(chosen, self.codes).to(logits.dtype)
            if noise is not None:
                soft = noisy.softmax(-1)
                hard = hard + soft - soft.detach()
            vectors = torch.einsum("bmgv,gvd->bmgd", hard, self.codebook)
            return vectors.flatten(2), logits.softmax(-1), chosen


class RandomProjectionQuantiser(nn.Module):
    """BEST-RQ (Chiu et al. 2022), BEATs' first tokenizer: nothing is learned.

    A token is normalised, projected by a fixed random matrix and named after the nearest of
    `codes` fixed random directions. The numbers come from `seed`, not from the network's start.
    """

    projection: Tensor
    directions: Tensor

    def __init__(self, in_dim: int, *, codes: int = 1024, dim: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.codes = codes
        draw = generator("random projection", seed)
        bound = (6 / (in_dim + dim)) ** 0.5  # Xavier-uniform, as published
        projection = torch.from_numpy(draw.uniform(-bound, bound, (in_dim, dim)))
        directions = torch.from_numpy(draw.normal(size=(codes, dim)))
        self.register_buffer("projection", projection.float())
        self.register_buffer("directions", F.normalize(directions.float(), dim=-1))

    def forward(self, values: Tensor) -> Tensor:
        """Codes of tokens `[B, N, P]`, int64 `[B, N]`."""
        with torch.autocast(values.device.type, enabled=False):
            x = F.layer_norm(values.float(), values.shape[-1:]) @ self.projection
            return (F.normalize(x, dim=-1) @ self.directions.T).argmax(-1)


class OnlineKMeans(nn.Module):
    """k-means of a stream of frames (Sculley 2010): each batch moves its nearest centres.

    The first batch gives the first centres, spread by farthest-point choice over it. A centre
    moves towards the mean of the frames it won, by their share in all it ever won. Sums run over
    all replicas, so that these keep the same centres.
    """

    centres: Tensor
    won: Tensor

    def __init__(self, clusters: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(clusters, dim))
        self.register_buffer("won", torch.zeros(clusters))

    def forward(self, frames: Tensor) -> Tensor:
        """Cluster of every frame `[..., dim]`, int64 `[...]`."""
        with torch.autocast(frames.device.type, enabled=False):
            scores = frames.float() @ self.centres.T - self.centres.square().sum(1) / 2
            return scores.argmax(-1)

    @torch.no_grad()
    def update(self, frames: Tensor, finite: Tensor) -> None:
        """Takes in frames `[M, dim]`; nothing changes where `finite` is False."""
        if not bool(finite):
            return
        frames = frames.detach().float()
        if not bool(self.won.any()):
            self._start(gather(frames))
        nearest = F.one_hot(self(frames), len(self.centres)).to(frames.dtype)  # [M, C]
        count, total = all_sum(nearest.sum(0)), all_sum(nearest.T @ frames)
        self.won += count
        share = (1 / self.won.clamp(min=1)).unsqueeze(1)
        self.centres += share * (total - count.unsqueeze(1) * self.centres)

    def _start(self, frames: Tensor) -> None:
        self.centres.copy_(farthest(frames, len(self.centres)))


def farthest(frames: Tensor, count: int) -> Tensor:
    """`count` of the frames `[M, dim]`: the first, then always the one farthest from all chosen."""
    chosen = frames[:1]
    distance = (frames - chosen).square().sum(1)
    for _ in range(count - 1):
        new = frames[distance.argmax()].unsqueeze(0)
        chosen = torch.cat([chosen, new])
        distance = torch.minimum(distance, (frames - new).square().sum(1))
    return chosen


class DirectionCodebook(nn.Module):
    """Unit vectors that follow the mean direction of the frames they name (BEATs' tokenizer).

    Looked up by the largest cosine. The first batch gives the first directions (the published code
    runs k-means over it); each later one moves those it used by 1 - `momentum`. Sums run over all
    replicas. Until then the directions are random, drawn from `seed`.
    """

    directions: Tensor
    begun: Tensor

    def __init__(self, codes: int, dim: int, *, momentum: float = 0.99, seed: int = 0) -> None:
        super().__init__()
        self.codes, self.momentum = codes, momentum
        drawn = torch.from_numpy(generator("direction codes", seed).normal(size=(codes, dim)))
        self.register_buffer("directions", F.normalize(drawn.float(), dim=1))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def forward(self, frames: Tensor) -> Tensor:
        """Codes of frames `[..., dim]`, int64 `[...]`."""
        with torch.autocast(frames.device.type, enabled=False):
            return (frames.float() @ self.directions.T).argmax(-1)

    @torch.no_grad()
    def update(self, frames: Tensor, finite: Tensor) -> None:
        """Takes in frames `[M, dim]`; nothing changes where `finite` is False."""
        if not bool(finite):
            return
        frames = F.normalize(frames.detach().float(), dim=1)
        if not bool(self.begun):
            self.directions.copy_(farthest(gather(frames), self.codes))
            self.begun.fill_(True)
        named = F.one_hot(self(frames), self.codes).to(frames.dtype)  # [M, C]
        mean = F.normalize(all_sum(named.T @ frames), dim=1)
        used = all_sum(named.sum(0)).unsqueeze(1) > 0
        moved = F.normalize(torch.lerp(mean, self.directions, self.momentum), dim=1)
        self.directions.copy_(torch.where(used, moved, self.directions))
