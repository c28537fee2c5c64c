"""Any of torchvision's classification models by name, as an encoder with a feature map."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from ssl_core.encoder import Features
from ssl_core.errors import UserError, unknown
from ssl_core.networks.keyed import key_randomness
from ssl_vision.encoders.spec import channels_of, size_of
from ssl_vision.encoders.stems import Stem, first_conv, replace_conv, set_stem

_WITHOUT_TRUNK = ("googlenet", "inception_v3")
_HEADS = ("fc", "classifier", "head", "heads")


def torchvision_names() -> list[str]:
    """Models that can be built, without the library's prefix."""
    return [name for name in models.list_models(module=models) if name not in _WITHOUT_TRUNK]


def _features(m: Any, x: Any) -> Any:
    return m.features(x)


def _resnet(m: Any, x: Any) -> Any:
    x = m.maxpool(m.relu(m.bn1(m.conv1(x))))
    return m.layer4(m.layer3(m.layer2(m.layer1(x))))


def _shufflenet(m: Any, x: Any) -> Any:
    return m.conv5(m.stage4(m.stage3(m.stage2(m.maxpool(m.conv1(x))))))


def _maxvit(m: Any, x: Any) -> Any:
    x = m.stem(x)
    for block in m.blocks:
        x = block(x)
    return x


# How to get the last feature map `[B, C, h, w]`, by class; others have `features`.
_TRUNKS: dict[type[nn.Module], Callable[[Any, Tensor], Any]] = {
    models.ResNet: _resnet,
    models.ShuffleNetV2: _shufflenet,
    models.MaxVit: _maxvit,
    models.RegNet: lambda m, x: m.trunk_output(m.stem(x)),
    models.MNASNet: lambda m, x: m.layers(x),
    models.DenseNet: lambda m, x: F.relu(m.features(x)),
    models.SwinTransformer: lambda m, x: m.permute(m.norm(m.features(x))),
}


class TorchvisionEncoder(nn.Module):
    """A torchvision model without classifier: `pooled` is the mean of its last feature map.

    ConvNeXt keeps the norm after pooling; vision transformers return their class token and
    patch tokens. The torchvision model keeps its names inside `model`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.embed_dim = 0  # set by `build_torchvision`, which measures it
        self.torchvision_name = ""
        self.torchvision_settings: Mapping[str, Any] = {}

    def forward(self, data: Tensor) -> Features:
        if isinstance(self.model, models.VisionTransformer):
            return self._tokens(data)
        trunk = _TRUNKS.get(type(self.model), _features)
        x = trunk(self.model, data)
        pooled = x.mean((2, 3))
        if isinstance(self.model, models.ConvNeXt):
            pooled = self.model.classifier(pooled[:, :, None, None])
        return Features(pooled, x.flatten(2).transpose(1, 2), tuple(x.shape[2:]))

    def _tokens(self, data: Tensor) -> Features:
        model: Any = self.model
        patches = model._process_input(data)  # [B, N, D]
        x = torch.cat([model.class_token.expand(len(data), -1, -1), patches], dim=1)
        x = model.encoder(x)
        grid = tuple(side // model.patch_size for side in data.shape[2:])
        return Features(x[:, 0], x[:, 1:], grid, prefix=x[:, :1])


def build_torchvision(
    name: str, spec: Mapping[str, Any], *, stem: Stem = "auto", **options: Any
) -> TorchvisionEncoder:
    """The encoder behind a torchvision name; `options` are the model's own arguments."""
    if name not in torchvision_names():
        raise unknown("encoder", f"torchvision/{name}", _prefixed())
    channels, sides = channels_of(spec), size_of(spec)
    if name.startswith("vit_"):
        options = {"image_size": sides[0]} | options
    elif name.startswith("maxvit"):
        options = {"input_size": sides} | options
    try:
        model = models.get_model(name, weights=None, **options)
        without_head(model)
        if channels != 3:
            replace_conv(*first_conv(model), in_channels=channels)
        set_stem(model, stem, max(sides))
        key_randomness(model)
        encoder = TorchvisionEncoder(model)
        encoder.embed_dim = _width(encoder, channels, sides)
        encoder.torchvision_name, encoder.torchvision_settings = name, options
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"encoder torchvision/{name}: does not take images of {channels} x {sides[0]} x "
            f"{sides[1]}, or these options: {error}"
        ) from error
    return encoder


def _prefixed() -> list[str]:
    return [f"torchvision/{name}" for name in torchvision_names()]


def without_head(model: nn.Module) -> None:
    """Takes the classifier off, so that every parameter left has a gradient."""
    if isinstance(model, models.ConvNeXt):
        model.classifier = model.classifier[:2]  # norm and flatten come before the last layer
        return
    for head in _HEADS:
        if hasattr(model, head):
            setattr(model, head, nn.Identity())


def _width(encoder: TorchvisionEncoder, channels: int, sides: tuple[int, int]) -> int:
    """Width of the pooled features, from a pass of shapes alone (the meta device)."""
    trial = copy.deepcopy(encoder).to("meta").eval()
    with torch.no_grad():
        features: Features = trial(torch.zeros(2, channels, *sides, device="meta"))
    return features.pooled.shape[1]
