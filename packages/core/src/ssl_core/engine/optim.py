"""Optimisers from a recipe: parameter groups, fused kernels, rates as pure functions of the step.

A group carries `lr_scale` (its rate relative to the schedule's) and `decayed` (whether weight
decay applies), so that `set_schedule` needs nothing but the step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ssl_core import recipe
from ssl_core.engine.lars import LARS
from ssl_core.errors import UserError
from ssl_core.schedules import Schedule, as_schedule, cosine, infinite, repeated, warmup_cosine

_UNDECAYED = (
    "pos_embed",
    "pos_embedding",
    "cls_token",
    "class_token",
    "dist_token",
    "mask_token",
    "reg_token",
    "register_tokens",
)
"""Last parts of names of parameters that stand for one vector or place, as timm lists them."""

_BLOCK = re.compile(
    r"(?:^|[._])(?:blocks|layers|layer|stages|resblocks|convs|features|encoder_layer)[._]?(\d+)(?=\.)"
)
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:(?:cls|class|dist|mask|reg)_token|register_tokens|pos_embed\w*|patch_embed\w*"
    r"|embeddings?|conv_proj|stem)(?:\.|$)"
)
_SHARED_BIAS = re.compile(r"(?:^|\.)rel_pos_bias\.")


def param_groups(
    module: nn.Module,
    *,
    weight_decay: float,
    layer_decay: float | None = None,
    backbone: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters of `module` in groups for an optimiser.

    No weight decay on parameters of one dimension or less, on biases, on tokens and positions and
    on what a submodule lists in timm's `no_weight_decay()`. With `layer_decay` d, parameters of
    `backbone` (default: the module itself) that belong to layer i of n have `lr_scale` d^(n - i);
    layers are 0 for embeddings, b + 1 for block b, n for what follows the blocks and everything
    outside the backbone (Clark et al. 2020; BEiT; MAE's fine-tuning). Every parameter is in
    exactly one group. Raises `UserError` when `layer_decay` finds no numbered blocks.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    exempt = _listed_undecayed(module)
    scales: dict[int, float] = {}
    if layer_decay is not None:
        scales = _layer_scales(module if backbone is None else backbone, layer_decay)
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, p in named:
        decayed = not (p.ndim <= 1 or name in exempt or name.endswith(("bias", *_UNDECAYED)))
        scale = scales.get(id(p), 1.0)
        group = groups.setdefault(
            (scale, decayed),
            {
                "params": [],
                "weight_decay": weight_decay if decayed else 0.0,
                "lr_scale": scale,
                "decayed": decayed,
            },
        )
        group["params"].append(p)
    return list(groups.values())


def layer_ids(names: Iterable[str]) -> tuple[dict[str, int], int]:
    """The layer of each parameter name of one backbone, and the last layer: blocks + 1 (head).

    Blocks are recognised by a number after blocks, layers, layer, stages, convs or features;
    nested numbering counts the outer one, so convolutional networks are grouped by stage. Names
    before the first block are embeddings (layer 0), names after the last one belong to the head.
    """
    ordered = list(names)
    blocks = {name: int(found[1]) for name in ordered if (found := _BLOCK.search(name))}
    if not blocks:
        return {}, 0
    first = min(blocks.values())
    last = max(blocks.values()) - first + 2
    before = next(i for i, name in enumerate(ordered) if name in blocks)
    ids: dict[str, int] = {}
    for i, name in enumerate(ordered):
        if name in blocks:
            ids[name] = blocks[name] - first + 1
        elif _SHARED_BIAS.search(name):
            ids[name] = last
        else:
            ids[name] = 0 if i < before or _EMBEDDING.search(name) else last
    return ids, last


def _layer_scales(backbone: nn.Module, layer_decay: float) -> dict[int, float]:
    """Learning-rate scale by parameter identity."""
    named = list(backbone.named_parameters())
    ids, last = layer_ids(name for name, _ in named)
    if not ids:
        raise UserError(
            f"optimizer.layer_decay={layer_decay}: {type(backbone).__name__} has no numbered "
            "blocks or stages to decay over; leave layer_decay unset"
        )
    return {id(p): layer_decay ** (last - ids[name]) for name, p in named}


def _listed_undecayed(module: nn.Module) -> set[str]:
    """Full names of what submodules ask to keep from weight decay, by timm's convention."""
    listed = set()
    for prefix, child in module.named_modules():
        own = getattr(child, "no_weight_decay", None)
        if callable(own):
            listed |= {f"{prefix}.{name}" if prefix else str(name) for name in own()}
    return listed


def build_optimizer(method: nn.Module, config: recipe.Optimizer) -> Optimizer:
    """The recipe's optimiser over a method's trainable parameters.

    Layer decay acts on `method.encoder` where there is one. Kernels are fused, so that setting
    `found_inf` skips a step on the device. Raises `UserError` when nothing is trainable.
    """
    encoder = getattr(method, "encoder", None)
    groups = param_groups(
        method,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
        backbone=encoder if isinstance(encoder, nn.Module) else None,
    )
    if not groups:
        raise UserError("optimizer: the method has no trainable parameters")
    for group in groups:
        group["lr"] = config.lr * group["lr_scale"]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    if config.name == "lars":
        for group in groups:
            group["adapt"] = group["decayed"]
        return LARS(groups, lr=config.lr, momentum=config.momentum)
    sgd = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    if config.momentum:
        # The fused kernel leaves new buffers unwritten when the very first step is skipped; from
        # zeros the first step is the same (momentum * 0 + g) and a skipped one is harmless.
        for group in sgd.param_groups:
            for p in group["params"]:
                sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return sgd


def set_schedule(optimizer: Optimizer, config: recipe.Optimizer, step: int, total: int) -> None:
    """Sets rate and weight decay of every group for the step about to be taken.

    A pure function of the step, times the group's `lr_scale`; see `schedules`.
    """
    rate, decay = schedules(config, step, total)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
        group["weight_decay"] = decay if group["decayed"] else 0.0


def schedules(config: recipe.Optimizer, step: int, total: int) -> tuple[float, float]:
    """(rate, weight decay) of a step.

    Linear warm-up then half a cosine to `config.end_lr`, once or every `config.cycle` steps, or
    what `config.infinite` says; weight decay constant or on a cosine to `config.weight_decay_end`.
    """
    rate = _rate(config, total)(step, total)
    end = config.weight_decay_end
    decay = as_schedule(config.weight_decay if end is None else cosine(config.weight_decay, end))
    return rate, decay(step, total)


def _rate(config: recipe.Optimizer, total: int) -> Schedule:
    """The learning rate's schedule."""
    if config.infinite is not None:
        return infinite(config.lr, end=config.end_lr, **config.infinite.model_dump())
    warmup = round(config.warmup * (config.cycle or total))
    once = warmup_cosine(config.lr, warmup=warmup, end=config.end_lr)
    return once if config.cycle is None else repeated(once, config.cycle)
