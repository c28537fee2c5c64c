"""Any of timm's models by name, as an encoder with pooled features and tokens."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.errors import UserError, unknown
from ssl_core.networks.keyed import key_randomness
from ssl_vision.encoders.grids import square_cells
from ssl_vision.encoders.spec import channels_of, size_of
from ssl_vision.encoders.stems import SMALL_STEM, Stem, set_stem
from ssl_vision.encoders.timm_vit import TimmViT, is_plain_vit


class TimmEncoder(nn.Module):
    """A timm model without classifier.

    `pooled` is what the model itself returns without its classifier (its own pooling and norm);
    `tokens` are the last features, from maps `[B, C, h, w]`, `[B, h, w, C]` or sequences; where
    the model widens after pooling (MobileNet v3), they are narrower than `embed_dim`.
    """

    def __init__(self, model: Any, embed_dim: int) -> None:
        super().__init__()
        self.model: Any = model
        self.embed_dim = embed_dim
        self.timm_name = ""
        self.timm_settings: Mapping[str, Any] = {}

    def timm_twin(self) -> nn.Module:
        """The same timm network with random weights."""
        twin: nn.Module = timm.create_model(self.timm_name, **self.timm_settings)
        return twin

    def timm_state_dict(self) -> dict[str, Tensor]:
        """The weights under timm's names; `UserError` where the stem is not timm's."""
        if getattr(self.model, SMALL_STEM, False):
            raise UserError(
                "format: this ResNet has a stem for small images, which timm's model lacks; use "
                "format 'safetensors', or pretrain with encoder.stem=imagenet"
            )
        weights: dict[str, Tensor] = self.model.state_dict()
        return weights

    def forward(self, data: Tensor) -> Features:
        last = self.model.forward_features(data)
        pooled = self.model.forward_head(last)
        if not isinstance(last, Tensor) or last.dim() not in (3, 4):
            return Features(pooled)  # several branches of different scale
        if last.dim() == 4:
            if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
                return Features(pooled, last.flatten(1, 2), tuple(last.shape[1:3]))
            return Features(pooled, last.flatten(2).transpose(1, 2), tuple(last.shape[2:]))
        count = getattr(self.model, "num_prefix_tokens", 0)
        grid = square_cells(tuple(data.shape[2:]), last.shape[1] - count)
        prefix = last[:, :count] if count else None
        return Features(pooled, last[:, count:], grid, prefix=prefix)


def build_timm(
    name: str, spec: Mapping[str, Any], *, stem: Stem = "auto", **options: Any
) -> nn.Module:
    """The encoder behind a timm name; `options` are the model's own arguments.

    Input channels and size follow the spec. Plain vision transformers come as token encoders
    (`TimmViT`), which masked methods take. The model is first tried on the meta device, so that an
    impossible size or option is a message before any work.
    """
    if not timm.is_model(name):
        raise unknown("encoder", name, timm.list_models())
    if options.get("pretrained"):
        raise UserError("encoder option pretrained: give weights=FILE.safetensors instead")
    sides = size_of(spec)
    settings = _settings(name, channels_of(spec), sides, options)
    try:
        with torch.device("meta"):
            trial = timm.create_model(name, **settings)
            width = _width(trial.eval(), channels_of(spec), sides)
        model = timm.create_model(name, **settings)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        shape = f"{channels_of(spec)} x {sides[0]} x {sides[1]}"
        raise UserError(
            f"encoder {name}: does not take images of {shape}, or these options: "
            f"{type(error).__name__}: {error}"
        ) from error
    set_stem(model, stem, max(sides))
    key_randomness(model)
    encoder = TimmViT(model) if is_plain_vit(model) else TimmEncoder(model, width)
    encoder.timm_name, encoder.timm_settings = name, settings
    return encoder


def _settings(
    name: str, channels: int, sides: tuple[int, int], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of `timm.create_model`: those among ours that the model has, then the user's."""
    settings: dict[str, Any] = {"in_chans": channels, "num_classes": 0}
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    taken = {
        parameter
        for kind in type(model).__mro__
        if "__init__" in vars(kind)
        for parameter in inspect.signature(vars(kind)["__init__"]).parameters
    }
    if "drop_rate" in taken:
        settings["drop_rate"] = 0.0  # dropout before a classifier that is not there
    if "img_size" in taken:
        settings["img_size"] = sides
    if "dynamic_img_size" in taken:
        settings["dynamic_img_size"] = True
    return settings | dict(options)


def _width(model: nn.Module, channels: int, sides: tuple[int, int]) -> int:
    """Width of the pooled features, from a pass of shapes alone (the meta device)."""
    with torch.no_grad():
        pooled: Tensor = model(torch.zeros(2, channels, *sides))
    return pooled.shape[1]
