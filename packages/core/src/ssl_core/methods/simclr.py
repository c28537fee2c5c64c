"""SimCLR (Chen et al., ICML 2020): two views of a sample attract, all others repel.

    L = -log exp(s(z_i, z_j) / t) / sum_{k != i} exp(s(z_i, z_k) / t),  mean over the 2B anchors

The released code sums the two directions; the paper's mean over anchors is used here. The same
method is GraphCL on graph views and SimCSE on dropout views: SimCSE (Gao et al., EMNLP 2021)
contrasts one direction across the two passes only (`pairs="cross"`) after a tanh layer
(`head="tanh"`). DCL (Yeh et al., ECCV 2022) leaves the positives out of the sum (`decoupled`), and
DCLW weighs each by how far apart its views are (`weight_sigma`, 0.5 in the paper). Xue et al.
(ICLR 2024) replace the head by fixed weights (`head="reweight"`; with `kappa=1` there is no head).
The released head ends in a batch norm, of which the paper says nothing (`last_norm`); batch norms
of the encoder see all views together, as released, or with `joint=False` each by itself, as in
PyTorch versions. `bf16` rounds products of embeddings (`pairs="all"` only).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import HeadKind, Norm, projection_head
from ssl_core.objectives import info_nce, nt_xent
from ssl_core.views import View, ViewPolicy


class SimCLR(Method):
    """Encoder and projector; NT-Xent over all views of all replicas."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 2048,
        dim: int = 128,
        layers: int = 2,
        head: HeadKind = "mlp",
        kappa: float = 1.05,
        norm: Norm = "batch",
        last_norm: bool = False,
        pairs: Literal["all", "cross"] = "all",
        temperature: float = 0.1,
        decoupled: bool = False,
        weight_sigma: float | None = None,
        joint: bool = True,
        bf16: bool = False,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = projection_head(
            head, kappa, width, dim, hidden=hidden, layers=layers, norm=norm, last_norm=last_norm
        )
        self.pairs, self.joint, self.bf16 = pairs, joint, bf16
        self.temperature, self.decoupled, self.weight_sigma = temperature, decoupled, weight_sigma

    def encode(self, views: Sequence[View]) -> list[Tensor]:
        return [self.projector(f.pooled) for f in self.features(views, joint=self.joint)]

    def loss(self, reps: list[Tensor]) -> Loss:
        if self.pairs == "cross":
            loss = info_nce(
                *reps,
                temperature=self.temperature,
                symmetric=False,
                decoupled=self.decoupled,
                bf16=self.bf16,
            )
        else:
            loss = nt_xent(
                *reps,
                temperature=self.temperature,
                decoupled=self.decoupled,
                weight_sigma=self.weight_sigma,
                bf16=self.bf16,
            )
        return Loss.of({"nt_xent": loss})
