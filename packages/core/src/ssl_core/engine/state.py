"""Training state as named tensors: what a checkpoint holds and how it comes back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ssl_core.engine.shards import split_like
from ssl_core.errors import UserError


def optimizer_tensors(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimiser state by parameter name: "blocks.0.weight/exp_avg" and so on."""
    names: dict[Tensor, str] = {p: name for name, p in method.named_parameters()}
    return {
        f"{names[parameter]}/{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }


def training_tensors(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that training changes: parameters, buffers, optimiser moments."""
    state = {f"method/{name}": tensor for name, tensor in method.state_dict().items()}
    moments = optimizer_tensors(method, optimizer)
    return state | {f"optimizer/{name}": tensor for name, tensor in moments.items()}


def load_training_tensors(
    method: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Puts saved tensors back; every name must match, in both directions."""
    weights, now = method_weights(tensors), method.state_dict()
    _require_same_names("checkpoint weights", set(weights), set(now))
    _require_same_shapes(weights, now)
    method.load_state_dict({name: split_like(t, now[name]) for name, t in weights.items()})

    moments: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer/").items():
        parameter, _, key = name.rpartition("/")
        moments.setdefault(parameter, {})[key] = tensor
    parameters = dict(method.named_parameters())
    names: dict[Tensor, str] = {p: name for name, p in parameters.items()}
    state_dict = optimizer.state_dict()
    order = [names[p] for group in optimizer.param_groups for p in group["params"]]
    _require_same_names("checkpoint moments", set(moments), set(moments) & set(order))
    for name, state in moments.items():
        moments[name] = {key: _laid_out(t, parameters[name]) for key, t in state.items()}
    state_dict["state"] = {i: moments[name] for i, name in enumerate(order) if name in moments}
    optimizer.load_state_dict(state_dict)


def method_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `training_tensors` saved of the method itself, by its own names."""
    return _under(tensors, "method/")


def _laid_out(moment: Tensor, parameter: Tensor) -> Tensor:
    """The moment with its parameter's strides, split over ranks as it is.

    Files hold row-major tensors, but a parameter may be channels-last; fused kernels walk both
    flat, so with other strides moments would meet other weights' gradients.
    """
    if moment.shape != parameter.shape:
        return moment
    if isinstance(parameter, DTensor):
        return split_like(moment, parameter)
    return torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _require_same_names(what: str, have: set[str], want: set[str]) -> None:
    if have != want:
        missing, extra = sorted(want - have)[:5], sorted(have - want)[:5]
        raise UserError(
            f"{what} do not fit this method: missing {missing}, unexpected {extra}. "
            "Resume with the recipe of the run, or start in a new folder"
        )


def _require_same_shapes(have: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> None:
    for name, tensor in want.items():
        if have[name].shape != tensor.shape:
            raise UserError(
                f"checkpoint weights do not fit this method: {name} has "
                f"{tuple(have[name].shape)}, not {tuple(tensor.shape)}. "
                "Resume with the recipe of the run, or start in a new folder"
            )
