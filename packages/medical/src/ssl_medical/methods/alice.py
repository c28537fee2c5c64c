"""Alice (Jiang et al., ICCV 2023): the same body part in another patient, and masked crops.

    L = w_1 H(P_t(partner), P_s(crop)) + w_2 H(P_t(place), P_s(place)) + w_3 MSE / 2

The student sees a crop with hidden patches and rebuilds all of it; the teacher, a moving average,
sees it whole. Class terms go across patients: a crop's partner is the crop of another scan in the
batch that lies nearest in the body (itself, where none lies within `tolerance` of the scan's
sides). Place terms stay within a crop: the student's places ask, by one cross attention, once the
student's decoder and once the teacher's map. P_t = softmax((t - centre) / T_t).

The released code finds partners with a frozen anatomical embedding, one pair of scans a step; here
positions in upright scans stand in for it. Its heads come before the cross attention, these after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.methods.masked import token_widths
from ssl_core.networks.attention import attention
from ssl_core.networks.decoders import TransformerDecoder
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import Norm, PrototypeHead
from ssl_core.networks.masks import RandomMasker
from ssl_core.networks.teacher import Teacher
from ssl_core.networks.transformer import Mlp
from ssl_core.objectives import Centering, mse, soft_cross_entropy
from ssl_core.objectives.precision import full_precision
from ssl_core.schedules import cosine, linear
from ssl_core.views import View, ViewPolicy


@dataclass
class Reps:
    """Logits of crops `[B, K]` and places `[B, N, P]`; pixels `[B, N, T]`; places in the body."""

    student: Tensor
    teacher: Tensor
    student_places: Tensor
    teacher_places: Tensor
    rebuilt: Tensor
    target: Tensor
    place: Tensor


class Align(nn.Module):
    """Places that ask what another map holds for them: cross attention and an MLP, norms after."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.keys = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        """`[B, N, D]` and `[B, M, D]` to `[B, N, D]`."""
        q = self.query(asking).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.keys(asked).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.norm1(asking + self.proj(found))
        return self.norm2(x + self.mlp(x))  # type: ignore[no-any-return]


class Alice(Method):
    """A token encoder; `weights` are those of class, places and reconstruction."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.75,
        tolerance: float = 0.1,
        prototypes: int = 512,
        place_prototypes: int = 512,
        hidden: int = 2048,
        bottleneck: int = 256,
        head_norm: Norm = "none",
        align_heads: int = 8,
        align_hidden: int = 2048,
        decoder_depth: int = 2,
        decoder_heads: int = 8,
        weights: tuple[float, float, float] = (1.0, 1.0, 10.0),
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.01,
        warmup_teacher_temperature: float = 0.008,
        warmup: float = 0.03,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__(encoder, views)
        width, pixels = token_widths(encoder)
        if not tolerance >= 0:
            raise ValueError(f"tolerance must not be negative, got {tolerance}")
        encoder.enable_mask_token()  # type: ignore[operator]
        self.masker = RandomMasker(mask_ratio, mode="replace")
        head = {"hidden": hidden, "bottleneck": bottleneck, "norm": head_norm}
        self.head = PrototypeHead(width, prototypes, **head)  # type: ignore[arg-type]
        self.place_head = PrototypeHead(width, place_prototypes, **head)  # type: ignore[arg-type]
        self.decoder = TransformerDecoder(
            width, width, dim=width, depth=decoder_depth, heads=decoder_heads, fill=False
        )
        self.pixels = nn.Linear(width, pixels)
        self.align = Align(width, align_heads, align_hidden)
        self.teacher = Teacher(encoder=encoder, head=self.head, place_head=self.place_head)
        self.centering = Centering(prototypes, momentum=center_momentum)
        self.place_centering = Centering(place_prototypes, momentum=center_momentum)
        self.tolerance, self.weights = tolerance, weights
        self.student_temperature = student_temperature
        self.temperature = linear(warmup_teacher_temperature, teacher_temperature, until=warmup)
        self.momentum = cosine(momentum, 1.0)
        self._means = (torch.zeros(prototypes), torch.zeros(place_prototypes))

    @property
    def backbone(self) -> nn.Module:
        return self.teacher.encoder

    def encode(self, views: Sequence[View]) -> list[Reps]:
        return [self._rep(view) for view in views]

    def _rep(self, view: View) -> Reps:
        tokens: Tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        mask = self.masker(view.rng, tokens.values.shape[1], grid=tokens.grid)
        with dropout_keys(view.rng):
            seen: Features = self.encoder.encode(tokens, mask)  # type: ignore[operator]
            decoded = self.decoder(seen, mask, tokens)
            with torch.no_grad():
                taught: Features = self.teacher.encoder.encode(tokens)  # type: ignore[operator]
        self.monitored = seen.pooled.detach()
        assert seen.tokens is not None
        assert taught.tokens is not None
        with torch.no_grad():
            teacher = self.teacher.head(taught.pooled)
            asked = self.align(seen.tokens, taught.tokens)
            teacher_places = _of_places(self.teacher.place_head, asked)
        return Reps(
            self.head(seen.pooled),
            teacher,
            _of_places(self.place_head, self.align(seen.tokens, decoded)),
            teacher_places,
            self.pixels(decoded),
            tokens.values,
            view.params["place"],
        )

    def loss(self, reps: list[Reps]) -> Loss:
        temperature = self.temperature(*self.progress)
        terms, matched = [], []
        for rep in reps:
            partner, near = partners(rep.place, self.tolerance)
            matched.append(near.float().mean())
            terms.append(
                alice(
                    (rep.student, rep.student_places, rep.rebuilt),
                    (rep.teacher[partner], rep.teacher_places, rep.target),
                    centers=(self.centering.center, self.place_centering.center),
                    student_temperature=self.student_temperature,
                    teacher_temperature=temperature,
                )
            )
        self._means = (
            torch.cat([rep.teacher for rep in reps]).float().mean(0),
            torch.cat([rep.teacher_places.flatten(0, 1) for rep in reps]).float().mean(0),
        )
        means = [torch.stack(part).mean() for part in zip(*terms, strict=True)]
        names = ("class", "places", "reconstruction")
        weighted = zip(names, self.weights, means, strict=True)
        return Loss.of({n: w * x for n, w, x in weighted}, {"matched": torch.stack(matched).mean()})

    def after_step(self, step: Step) -> None:
        for centering, mean in zip(
            (self.centering, self.place_centering), self._means, strict=True
        ):
            centering.update(mean, finite=step.finite)
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)


def _of_places(head: nn.Module, x: Tensor) -> Tensor:
    """A head on every place: `[B, N, D]` to `[B, N, P]`."""
    out: Tensor = head(x.flatten(0, 1))
    return out.unflatten(0, x.shape[:2])


@full_precision
def alice(
    student: tuple[Tensor, Tensor, Tensor],
    teacher: tuple[Tensor, Tensor, Tensor],
    *,
    centers: tuple[Tensor, Tensor],
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.01,
) -> tuple[Tensor, Tensor, Tensor]:
    """The three terms, unweighted.

    `student` and `teacher` hold logits `[B, K]`, logits of places `[B, N, P]` and voxels; the
    teacher's first are those of each row's partner, its last the whole crop. Half the mean squared
    error, over hidden and shown voxels alike.
    """
    terms = []
    for s, t, center in zip(student[:2], teacher[:2], centers, strict=True):
        target = ((t - center) / teacher_temperature).softmax(-1)
        terms.append(soft_cross_entropy(s, target, temperature=student_temperature))
    return terms[0], terms[1], mse(student[2], teacher[2]) / 2


def partners(place: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """For each crop the nearest other one: rows int64 `[B]`, and which lie within `tolerance`.

    `place` `[B, n]` are centres as shares of the scan's sides. A crop without one near enough is
    its own partner.
    """
    apart = torch.cdist(place.double(), place.double())
    nearest, row = apart.fill_diagonal_(float("inf")).min(1)
    near = nearest <= tolerance
    return torch.where(near, row, torch.arange(len(place), device=place.device)), near
