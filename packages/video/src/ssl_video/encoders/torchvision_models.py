"""torchvision's video networks by name, and its image networks frame by frame."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models

from ssl_core.encoder import Features
from ssl_core.errors import UserError, unknown
from ssl_core.networks.keyed import key_randomness
from ssl_video.encoders.spec import clip_shape

FRAMES = "frames/"
"""Prefix of image networks run on every frame."""
_HEADS = ("fc", "classifier", "head", "heads")
Time = Literal["mean", "max"]


def video_names() -> list[str]:
    """torchvision's video models."""
    return list(models.list_models(module=models.video))


def image_names() -> list[str]:
    """torchvision's image models that can run frame by frame, without prefix: those with a map."""
    named = models.list_models(module=models)
    return [n for n in named if n.startswith(("resnet", "resnext", "wide_resnet", "convnext"))]


class TorchvisionVideo(nn.Module):
    """A torchvision video model without classifier; its own names stay inside `model`.

    Convolutional networks and Swin give the map `[B, t h w, D]` as tokens and its mean as pooled;
    MViT gives its class token.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.embed_dim = 0  # set by `build_video`, which measures it
        if isinstance(model, models.video.VideoResNet):
            self.levels = (64, 128, 256, 512)

    def stages(self, data: Tensor) -> list[Tensor]:
        """The maps of a ResNet's four stages, `[B, width, t, h, w]`."""
        model: Any = self.model
        x = model.stem(data)
        maps = []
        for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = layer(x)
            maps.append(x)
        return maps

    def forward(self, data: Tensor) -> Features:
        model: Any = self.model
        if isinstance(model, models.video.MViT):
            return Features(model(data))
        if isinstance(model, models.video.VideoResNet):
            x = self.stages(data)[-1]
        elif isinstance(model, models.video.SwinTransformer3d):
            x = model.pos_drop(model.patch_embed(data))
            x = model.norm(model.features(x)).permute(0, 4, 1, 2, 3)
        else:
            x = model.features(data)
        return Features(x.mean((2, 3, 4)), x.flatten(2).transpose(1, 2), tuple(x.shape[2:]))


class FrameEncoder(nn.Module):
    """An image network on every frame, its features pooled over time: blind to order.

    `time` "mean" or "max" over the frames' pooled features.
    """

    def __init__(self, model: nn.Module, *, time: Time = "mean") -> None:
        super().__init__()
        if time not in ("mean", "max"):
            raise ValueError(f"time must be mean or max, got {time!r}")
        self.model = model
        self.time = time
        self.embed_dim = 0  # set by `build_frames`, which measures it

    def forward(self, data: Tensor) -> Features:
        frames = data.shape[2]
        each: Tensor = self.model(data.transpose(1, 2).flatten(0, 1))  # [B T, D]
        tokens = each.flatten(1).unflatten(0, (-1, frames))
        pooled = tokens.mean(1) if self.time == "mean" else tokens.amax(1)
        return Features(pooled, tokens, (frames,))


def build_video(name: str, spec: Mapping[str, Any], **options: Any) -> TorchvisionVideo:
    """The encoder behind a torchvision video name; `options` are the model's own arguments."""
    if name not in video_names():
        raise unknown("encoder", name, video_names())
    return _built(name, TorchvisionVideo, options, clip_shape(spec))


def build_frames(
    name: str, spec: Mapping[str, Any], *, time: Time = "mean", **options: Any
) -> FrameEncoder:
    """A torchvision image network on every frame."""
    if name not in image_names():
        raise unknown("encoder", FRAMES + name, [FRAMES + other for other in image_names()])
    return _built(name, lambda model: FrameEncoder(model, time=time), options, clip_shape(spec))


def _built(name: str, wrap: Any, options: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    try:
        model = models.get_model(name, weights=None, **options)
        _without_head(model)
        key_randomness(model)
        encoder = wrap(model)
        encoder.embed_dim = _width(encoder, shape)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        frames, height, width = shape
        raise UserError(
            f"encoder {name}: does not take clips of 3 x {frames} x {height} x {width}, or these "
            f"options: {error}"
        ) from error
    return encoder


def _without_head(model: nn.Module) -> None:
    """Takes the classifier off, so that every parameter left has a gradient."""
    if isinstance(model, models.ConvNeXt):
        model.classifier = model.classifier[:2]
        return
    for head in _HEADS:
        if hasattr(model, head):
            setattr(model, head, nn.Identity())


def _width(encoder: nn.Module, shape: tuple[int, ...]) -> int:
    """Width of the pooled features, from a pass of shapes alone (the meta device)."""
    trial = copy.deepcopy(encoder).to("meta").eval()
    with torch.no_grad():
        features: Features = trial(torch.zeros(2, 3, *shape, device="meta"))
    return features.pooled.shape[1]
