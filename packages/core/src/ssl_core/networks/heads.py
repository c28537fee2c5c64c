"""Projection, prediction and prototype heads."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "layer", "none"]
HeadKind = Literal["mlp", "tanh", "reweight"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


def _norm(kind: Norm, dim: int) -> list[nn.Module]:
    if kind == "none":
        return []
    return [nn.BatchNorm1d(dim) if kind == "batch" else nn.LayerNorm(dim)]


class MLPHead(nn.Sequential):
    """`layers` linear layers `[B, in_dim] -> [B, dim]`, `hidden` wide in between.

    Each hidden layer is followed by `norm` and `activation`; a linear layer before a norm has no
    bias. `last_norm` adds batch norm without affine parameters after the last layer (SimCLR v2,
    MoCo v3), `last_bias` its bias, `last_activation` an activation (SimCSE's tanh layer is
    `layers=1, last_activation="tanh"`).
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        hidden: int = 2048,
        layers: int = 2,
        norm: Norm = "batch",
        activation: str = "relu",
        last_bias: bool = True,
        last_norm: bool = False,
        last_activation: str | None = None,
    ) -> None:
        if layers < 1:
            raise ValueError(f"a head needs at least one layer, got layers={layers}")
        modules: list[nn.Module] = []
        for layer in range(layers - 1):
            width = in_dim if layer == 0 else hidden
            modules += [nn.Linear(width, hidden, bias=norm == "none"), *_norm(norm, hidden)]
            modules.append(_ACTIVATIONS[activation]())
        width = in_dim if layers == 1 else hidden
        modules.append(nn.Linear(width, dim, bias=last_bias and not last_norm))
        if last_norm:
            modules.append(nn.BatchNorm1d(dim, affine=False))
        if last_activation is not None:
            modules.append(_ACTIVATIONS[last_activation]())
        super().__init__(*modules)
        self.dim = dim

    def stages(self) -> list[nn.Module]:
        """The head's layers in order, each a linear map with the norm and activation behind it."""
        modules = list(self)
        starts = [i for i, module in enumerate(modules) if isinstance(module, nn.Linear)]
        ends = [*starts[1:], len(modules)]
        return [nn.Sequential(*modules[a:b]) for a, b in zip(starts, ends, strict=True)]


class ReweightHead(nn.Module):
    """A projection head without parameters: x * (1, 1/kappa, 1/kappa^2, ...), `[B, D] -> [B, D]`.

    What a trained head does to features, kept fixed: the loss sees them unequally, and those
    before the head stay even. 1 is the identity, no head at all. Xue et al., ICLR 2024 (arXiv
    2403.11391), where kappa is 1.05 in training and 1.01 on the finished features.
    """

    weights: Tensor

    def __init__(self, dim: int, *, kappa: float = 1.05) -> None:
        super().__init__()
        if kappa < 1:
            raise ValueError(f"kappa must be at least 1, got {kappa}")
        weights = kappa ** -torch.arange(dim, dtype=torch.float64)
        self.register_buffer("weights", weights.float(), persistent=False)
        self.dim = dim

    def stages(self) -> list[nn.Module]:
        """The head itself."""
        return [self]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights


def projection_head(
    kind: HeadKind,
    kappa: float,
    in_dim: int,
    dim: int,
    *,
    hidden: int,
    layers: int,
    norm: Norm,
    last_norm: bool,
) -> nn.Module:
    """What stands between an encoder and a contrast: `MLPHead`, a tanh layer or `ReweightHead`.

    The last two are as wide as their input and take nothing from the options of the first; `kappa`
    is the third's.
    """
    if kind == "reweight":
        return ReweightHead(in_dim, kappa=kappa)
    if kind == "tanh":
        return MLPHead(in_dim, in_dim, layers=1, last_activation="tanh")
    if kind != "mlp":
        raise ValueError(f"head must be 'mlp', 'tanh' or 'reweight', got {kind!r}")
    return MLPHead(in_dim, dim, hidden=hidden, layers=layers, norm=norm, last_norm=last_norm)


class PrototypeHead(nn.Module):
    """DINO's head: MLP to a bottleneck, L2 norm, then unit-norm prototypes; logits `[B, K]`.

    The last layer is linear with weight g_k v_k / |v_k|; with `norm_last` g is fixed at 1, so
    every logit is a cosine. While `frozen` is True the prototypes get a zero gradient (DINO
    freezes them for the first epoch). Caron et al. 2021.
    """

    weight_g: Tensor

    def __init__(
        self,
        in_dim: int,
        prototypes: int,
        *,
        hidden: int = 2048,
        bottleneck: int = 256,
        layers: int = 3,
        norm: Norm = "none",
        norm_last: bool = True,
    ) -> None:
        super().__init__()
        self.mlp = MLPHead(
            in_dim, bottleneck, hidden=hidden, layers=layers, norm=norm, activation="gelu"
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.weight_v = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.kaiming_uniform_(self.weight_v, a=5**0.5)
        if norm_last:
            self.register_buffer("weight_g", torch.ones(prototypes, 1))
        else:
            self.weight_g = nn.Parameter(torch.ones(prototypes, 1))
        self.frozen = False

    def embed(self, x: Tensor) -> Tensor:
        """Unit vectors in the bottleneck, `[..., in_dim] -> [..., bottleneck]`."""
        return F.normalize(self.mlp(x), dim=-1)

    def weights(self) -> Tensor:
        """The last layer, `[prototypes, bottleneck]`."""
        v: Tensor = self.weight_v
        if self.frozen:
            # A zero gradient rather than none: every replica still takes part in the reduction.
            v = v.detach() + 0 * v
        return self.weight_g * F.normalize(v, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x) @ self.weights().T
