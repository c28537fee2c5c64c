"""MONAI's networks as encoders: the contracting half, under MONAI's own names inside `model`.

Their decoders stay out, so that every parameter left has a gradient; weights written here load
into MONAI's whole network with `strict=False`, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.networks.keyed import key_randomness
from ssl_medical.encoders.resnet_nano import pooled

Maps = Callable[[Any, Tensor], list[Tensor]]


class MonaiEncoder(nn.Module):
    """Maps of several resolutions, finest first; features are those of the last."""

    def __init__(self, model: nn.Module, maps: Maps, channels: int, sides: Sequence[int]) -> None:
        super().__init__()
        key_randomness(model)
        self.model = model
        self._maps = maps
        self.axes = len(sides)
        with torch.no_grad():
            training = self.training
            found = self.eval().stages(torch.zeros(1, channels, *sides))
            self.train(training)
        self.levels = tuple(x.shape[1] for x in found)
        self.strides = tuple(int(sides[0]) // x.shape[2] for x in found)
        self.embed_dim = self.levels[-1]

    def stages(self, data: Tensor) -> list[Tensor]:
        """The maps, `[B, width, *sides]`."""
        return self._maps(self.model, data)

    def forward(self, data: Tensor) -> Features:
        return pooled(self.stages(data)[-1])


def _facts(spec: Mapping[str, Any]) -> tuple[int, int, list[int]]:
    axes = int(spec["axes"])
    return (
        int(spec["channels"]),
        axes,
        [int(s) for s in spec.get("view_sides", spec["block"])][:axes],
    )


def _without(model: nn.Module, *names: str) -> nn.Module:
    for name in names:
        delattr(model, name)
    return model


def segresnet(
    spec: Mapping[str, Any], *, init_filters: int = 16, blocks_down: Sequence[int] = (1, 2, 2, 4)
) -> MonaiEncoder:
    """The encoder of SegResNet (Myronenko 2018)."""
    from monai.networks.nets import SegResNet

    channels, axes, sides = _facts(spec)
    _divisible("monai_segresnet", sides, 2 ** (len(blocks_down) - 1))
    whole = SegResNet(
        spatial_dims=axes,
        in_channels=channels,
        init_filters=init_filters,
        blocks_down=tuple(blocks_down),
        blocks_up=(1,) * (len(blocks_down) - 1),
    )
    model = _without(whole, "up_layers", "up_samples", "conv_final")
    return MonaiEncoder(model, lambda m, x: m.encode(x)[1], channels, sides)


def dynunet(
    spec: Mapping[str, Any], *, filters: Sequence[int] = (32, 64, 128, 256, 320)
) -> MonaiEncoder:
    """The encoder of DynUNet, nnU-Net's network in MONAI (Isensee et al. 2021)."""
    from monai.networks.nets import DynUNet

    channels, axes, sides = _facts(spec)
    _divisible("monai_dynunet", sides, 2 ** (len(filters) - 1))
    strides = [1] + [2] * (len(filters) - 1)
    whole = DynUNet(
        spatial_dims=axes,
        in_channels=channels,
        out_channels=2,
        kernel_size=[3] * len(filters),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=list(filters),
    )
    model = _without(whole, "upsamples", "output_block", "skip_layers", "heads")
    return MonaiEncoder(model, _dynunet_maps, channels, sides)


def _dynunet_maps(model: Any, x: Tensor) -> list[Tensor]:
    maps = [model.input_block(x)]
    for layer in [*model.downsamples, model.bottleneck]:
        maps.append(layer(maps[-1]))
    return maps


def swin_unetr(
    spec: Mapping[str, Any],
    *,
    feature_size: int = 48,
    depths: Sequence[int] = (2, 2, 2, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
) -> MonaiEncoder:
    """The Swin transformer of Swin UNETR (Tang et al. 2022)."""
    from monai.networks.nets import SwinUNETR

    channels, axes, sides = _facts(spec)
    _divisible("monai_swin_unetr", sides, 32)
    whole = SwinUNETR(
        in_channels=channels,
        out_channels=2,
        feature_size=feature_size,
        depths=tuple(depths),
        num_heads=tuple(num_heads),
        spatial_dims=axes,
    )
    model = nn.Module()
    model.swinViT = whole.swinViT  # its parameters keep the names they have in SwinUNETR
    return MonaiEncoder(model, lambda m, x: list(m.swinViT(x, True)), channels, sides)


def vit(
    spec: Mapping[str, Any],
    *,
    patch: int = 16,
    hidden_size: int = 768,
    mlp_dim: int = 3072,
    num_layers: int = 12,
    num_heads: int = 12,
) -> MonaiEncoder:
    """MONAI's ViT, the encoder of UNETR."""
    from monai.networks.nets import ViT

    channels, axes, sides = _facts(spec)
    _divisible("monai_vit", sides, patch)
    model = ViT(
        in_channels=channels,
        img_size=sides,
        patch_size=(patch,) * axes,
        hidden_size=hidden_size,
        mlp_dim=mlp_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        spatial_dims=axes,
    )
    for block in model.blocks:  # cross attention that this network never runs
        for name in ("norm_cross_attn", "cross_attn"):
            if hasattr(block, name):
                delattr(block, name)
                setattr(block, name, nn.Identity())
    grid = tuple(side // patch for side in sides)
    return MonaiEncoder(
        model, lambda m, x: [m(x)[0].transpose(1, 2).unflatten(2, grid)], channels, sides
    )


def resnet(
    spec: Mapping[str, Any], *, depth: int = 50, width: float = 1.0, stem_kernel: int = 7
) -> MonaiEncoder:
    """A ResNet of 10 to 200 layers (He et al. 2016; in three dimensions Chen et al. 2019)."""
    from monai.networks.nets import resnet as networks

    channels, axes, sides = _facts(spec)
    _divisible("monai_resnet", sides, 32)
    if depth not in _RESNETS:
        known = ", ".join(map(str, _RESNETS))
        raise UserError(f"encoder monai_resnet: depth must be one of {known}, got {depth}")
    model = getattr(networks, f"resnet{depth}")(
        spatial_dims=axes,
        n_input_channels=channels,
        widen_factor=width,
        conv1_t_size=stem_kernel,
        conv1_t_stride=2,
        feed_forward=False,
    )
    return MonaiEncoder(model, _resnet_maps, channels, sides)


_RESNETS = (10, 18, 34, 50, 101, 152, 200)


def _resnet_maps(model: Any, x: Tensor) -> list[Tensor]:
    maps = [model.act(model.bn1(model.conv1(x)))]
    x = model.maxpool(maps[0])
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        maps.append(x)
    return maps


def _divisible(name: str, sides: Sequence[int], by: int) -> None:
    if any(side % by for side in sides):
        raise UserError(f"encoder {name}: views of {sides} voxels must be multiples of {by}")
