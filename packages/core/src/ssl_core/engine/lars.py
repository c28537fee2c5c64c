"""LARS (You, Gitman & Ginsburg 2017): SGD whose step is scaled to each tensor's own norm.

Two forms are in use and give different numbers:

- "norm_of_sum" (Barlow Twins, MoCo v3, VICReg): ratio = trust |p| / |g + wd p|;
- "sum_of_norms" (LARC, solo-learn): ratio = trust |p| / (|g| + wd |p| + eps), with `clip` capped so
  that the effective rate never exceeds the group's.

Both then run momentum on ratio * (g + wd p) and multiply by the learning rate last. A tensor of
norm zero, or with gradient zero, takes ratio 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssl_core.compiling import one_thread

Form = Literal["norm_of_sum", "sum_of_norms"]

_FUSED_DEVICES = ("cpu", "cuda")


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling.

    Arguments: `params` are parameters or groups; a group with `adapt=False` (biases, norms) takes
    plain momentum SGD with its own `weight_decay`. `trust` is the paper's eta. `form`, `clip` and
    `eps` as above.

    When `found_inf` is set on the optimiser (0-dim float32 tensor, 1 means skip) the step changes
    nothing where it is 1, without asking the device. Gradients may be overwritten by a step.
    """

    found_inf: Tensor | None = None
    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        nesterov: bool = False,
        form: Form = "norm_of_sum",
        clip: bool = False,
        eps: float = 1e-8,
    ) -> None:
        if form not in ("norm_of_sum", "sum_of_norms"):
            raise ValueError(f"LARS: form must be norm_of_sum or sum_of_norms, got {form!r}")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "nesterov": nesterov,
            "form": form,
            "clip": clip,
            "eps": eps,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        grads = [_dense_gradient(p) for p in params]
        # Without momentum the kernels take no buffers at all.
        buffers = [self._buffer(p) for p in params] if group["momentum"] else []
        if not group["adapt"]:
            self._sgd(group, params, grads, buffers, weight_decay=group["weight_decay"])
        elif _kernel_divides(params):
            # One by one, while a tensor is in the cache; the kernel decays and scales on its way.
            for i, (p, g) in enumerate(zip(params, grads, strict=True)):
                self._step_tensor(group, p, g, buffers[i : i + 1])
        else:
            ratios = _decay_and_ratios(group, params, grads)
            torch._foreach_mul_(grads, list(ratios.unbind()))
            self._sgd(group, params, grads, buffers, weight_decay=0.0)

    def _step_tensor(
        self, group: dict[str, Any], p: Tensor, g: Tensor, buffers: list[Tensor]
    ) -> None:
        """One float32 tensor on the CPU; `buffers` holds its momentum, or nothing."""
        loops = _loops(p, g, *buffers)
        ratio = _ratio(group, p, g, loops)
        if loops is None:
            self._sgd(
                group,
                [p],
                [g],
                buffers,
                weight_decay=ratio * group["weight_decay"],
                grad_scale=torch.tensor(1 / ratio),
            )
        elif self.found_inf is None or not self.found_inf:
            loops.sgd_(
                p,
                g,
                buffers[0] if buffers else None,
                lr=float(group["lr"]),
                momentum=group["momentum"],
                nesterov=group["nesterov"],
                ratio=ratio,
                decay=group["weight_decay"],
            )

    def _sgd(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        buffers: list[Tensor],
        *,
        weight_decay: float,
        grad_scale: Tensor | None = None,
    ) -> None:
        """Momentum SGD of gradients already scaled (or divided by `grad_scale` on the way)."""
        if params[0].device.type not in _FUSED_DEVICES:
            assert grad_scale is None, "only the CPU path divides in the kernel"
            _sgd_by_tensor(group, params, grads, buffers, weight_decay, self.found_inf)
            return
        torch._fused_sgd_(
            params,
            grads,
            buffers,
            weight_decay=weight_decay,
            momentum=group["momentum"],
            lr=float(group["lr"]),
            dampening=0.0,
            nesterov=group["nesterov"],
            maximize=False,
            is_first_step=False,
            grad_scale=grad_scale,
            found_inf=self.found_inf,
        )

    def _buffer(self, p: Tensor) -> Tensor:
        """The momentum of `p`, zero at first: momentum * 0 + g is the usual first step."""
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _kernel_divides(params: list[Tensor]) -> bool:
    """Whether the fused kernel may divide by a scale read on the host; it takes float32 only."""
    return "cpu" in _FUSED_DEVICES and all(
        p.device.type == "cpu" and p.dtype == torch.float32 for p in params
    )


def _loops(*tensors: Tensor) -> ModuleType | None:
    """Compiled loops, where one thread does the work and the tensors lie alike in memory."""
    formats = [torch.contiguous_format]
    if tensors[0].ndim == 4:
        formats.append(torch.channels_last)
    if any(all(x.is_contiguous(memory_format=f) for x in tensors) for f in formats):
        return one_thread("ssl_core.engine.lars_loops", tensors)
    return None


def _dense_gradient(p: Tensor) -> Tensor:
    assert p.grad is not None, "parameters without a gradient were left out"
    if p.grad.is_sparse:
        raise ValueError("LARS does not take sparse gradients; use a dense embedding")
    return p.grad


def _ratio(group: dict[str, Any], p: Tensor, g: Tensor, loops: ModuleType | None) -> float:
    """One tensor's trust ratio, without forming g + wd p: |g|^2 + 2 wd g.p + wd^2 |p|^2."""
    pp, gg, gp = _products(group, p, g) if loops is None else loops.products(p, g)
    decay, size, steep = group["weight_decay"], pp**0.5, gg**0.5
    if group["form"] == "sum_of_norms":
        below = steep + decay * size + group["eps"]
    elif decay:
        apart = gg + decay**2 * pp
        squared = apart + 2 * decay * gp
        # Where the two nearly cancel the sum of squares has lost its digits.
        exact = squared < 1e-3 * apart
        below = float((g + decay * p).norm()) if exact else squared**0.5
    else:
        below = steep
    if not (size > 0 and below > 0):
        return 1.0
    ratio: float = group["trust"] * size / below
    return min(ratio / group["lr"], 1.0) if group["clip"] else ratio


def _products(group: dict[str, Any], p: Tensor, g: Tensor) -> tuple[float, float, float]:
    """p.p, g.g and, where the ratio needs it, g.p."""
    flat_p, flat_g = _flat(p, g)
    crossed = group["weight_decay"] and group["form"] == "norm_of_sum"
    gp = float(flat_g.dot(flat_p)) if crossed else 0.0
    return float(flat_p.dot(flat_p)), float(flat_g.dot(flat_g)), gp


def _flat(p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Both as vectors in one order; without a copy where they lie alike in memory."""
    if p.ndim == 4 and not p.is_contiguous():
        p, g = p.permute(0, 2, 3, 1), g.permute(0, 2, 3, 1)  # channels last
    return p.reshape(-1), g.reshape(-1)


def _decay_and_ratios(group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> Tensor:
    """Adds weight decay to the gradients in place; returns every tensor's trust ratio, `[P]`."""
    decay = group["weight_decay"]
    size = torch.stack(torch._foreach_norm(params))
    if group["form"] == "sum_of_norms":
        below = torch.stack(torch._foreach_norm(grads)) + decay * size + group["eps"]
    if decay:
        torch._foreach_add_(grads, params, alpha=decay)
    if group["form"] == "norm_of_sum":
        below = torch.stack(torch._foreach_norm(grads))
    ratio = group["trust"] * size / below
    if group["clip"]:
        ratio = (ratio / group["lr"]).clamp(max=1)
    return torch.where((size > 0) & (below > 0), ratio, torch.ones_like(ratio))


def _sgd_by_tensor(
    group: dict[str, Any],
    params: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    weight_decay: float,
    found_inf: Tensor | None,
) -> None:
    """The fused kernel's arithmetic, for devices that have no such kernel."""
    momentum = group["momentum"]
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        g = g.add(p, alpha=weight_decay)
        moved = g + momentum * buffers[i] if buffers else g
        new = p - group["lr"] * (g + momentum * moved if group["nesterov"] else moved)
        if found_inf is not None:
            new = torch.where(found_inf > 0, p, new)
        if found_inf is not None and buffers:
            moved = torch.where(found_inf > 0, buffers[i], moved)
        if buffers:
            buffers[i].copy_(moved)
        p.copy_(new)
