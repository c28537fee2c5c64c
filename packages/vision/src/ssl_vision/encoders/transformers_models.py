"""transformers' vision models as encoders: by model type from a config, or from a local folder."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.errors import UserError, unknown
from ssl_core.networks.keyed import key_randomness
from ssl_core.networks.weights import WeightReport
from ssl_vision.encoders.grids import square_cells
from ssl_vision.encoders.spec import channels_of, size_of

_log = logging.getLogger("ssl_core.weights")

TYPES = (
    *("beit", "bit", "clip_vision_model", "convnext", "convnextv2", "cvt", "data2vec-vision"),
    *("deit", "dinov2", "dinov2_with_registers", "dinov3_convnext", "dinov3_vit"),
    *("efficientnet", "focalnet", "hiera", "ijepa", "levit", "mobilenet_v1", "mobilenet_v2"),
    *("mobilevitv2", "poolformer", "pvt", "pvt_v2", "regnet", "resnet", "segformer"),
    *("siglip_vision_model", "swiftformer", "swin", "swinv2", "vit", "vit_msn"),
)
"""Model types (`model_type` of a config.json) that take images and give one feature map."""
_MINIMUM = 0.9
"""Share of a network's tensors that a folder must hold."""


class TransformersEncoder(nn.Module):
    """A transformers model without head.

    `pooled` is the model's own `pooler_output`, where it has one that pretraining reaches, else its
    class token, else the mean of its tokens. The model keeps its names inside `model`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.embed_dim = 0  # set by `build_transformers`, which measures it
        self._resizes = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        self._has_class_token = any(
            name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters()
        )

    def forward(self, data: Tensor) -> Features:
        extra = {"interpolate_pos_encoding": True} if self._resizes and self._moved(data) else {}
        found = self.model(pixel_values=data, **extra)
        tokens, grid, count = found.last_hidden_state, (), 0
        if tokens.dim() == 4:  # [B, D, h, w]
            tokens, grid = tokens.flatten(2).transpose(1, 2), tuple(tokens.shape[2:])
        else:
            grid, count = self._placed(tuple(data.shape[2:]), tokens.shape[1])
        prefix = tokens[:, :count] if count else None
        return Features(self.pooled(found), tokens[:, count:], grid, prefix=prefix)

    def pooled(self, found: Any) -> Tensor:
        """Pooled features `[B, D]` of what a model of this kind returns."""
        own: Tensor | None = getattr(found, "pooler_output", None)
        if own is not None:
            return own.flatten(1)
        last: Tensor = found.last_hidden_state
        if last.dim() == 4:
            return last.mean((2, 3))
        return last[:, 0] if self._has_class_token else last.mean(1)

    def _moved(self, data: Tensor) -> bool:
        """Whether images are of another size than the positions were made for."""
        return _sides(self.model.config) not in (None, tuple(data.shape[2:]))

    def _placed(self, sides: tuple[int, ...], count: int) -> tuple[tuple[int, ...], int]:
        """The grid of `count` tokens, and how many of them stand before it (class, registers)."""
        patch = getattr(self.model.config, "patch_size", None)
        if isinstance(patch, int):
            grid = (sides[0] // patch, sides[1] // patch)
            if 0 < grid[0] * grid[1] <= count:
                return grid, count - grid[0] * grid[1]
        whole = square_cells(sides, count)
        return (whole, 0) if whole else (square_cells(sides, count - 1), 1)


def build_transformers(name: str, spec: Mapping[str, Any], **options: Any) -> TransformersEncoder:
    """The encoder behind a model type (`vit`, `swin`, `dinov2`), or a folder with a config.json.

    From a type, input channels and size follow the spec, weights are random, and `options` are
    values of the config (`hidden_size`, `num_hidden_layers`). A folder brings its own config and,
    where it holds `model.safetensors`, its weights; `encoder.weight_report` says what matched.
    Layers that no feature depends on (mask tokens) are frozen.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError(
            f"encoder transformers/{name}: transformers is not installed; pip install "
            "'ssl-vision[transformers]'"
        )
    folder = Path(name).expanduser()
    channels, sides = channels_of(spec), size_of(spec)
    try:
        if folder.is_dir():
            model, report = _from_folder(folder, channels, options)
        else:
            model, report = _from_type(name, channels, sides, options), None
        key_randomness(model)
        encoder = TransformersEncoder(model)
        encoder.embed_dim = _prepare(encoder, channels, sides)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError, OSError) as error:
        shape = f"{channels} x {sides[0]} x {sides[1]}"
        raise UserError(
            f"encoder transformers/{name}: does not take images of {shape}, or these options: "
            f"{type(error).__name__}: {str(error)[:300]}"
        ) from error
    if report is not None:
        encoder.weight_report = report  # type: ignore[assignment]
        _log.info("weights %s: %s", folder, report)
    return encoder


def _from_type(
    name: str, channels: int, sides: tuple[int, int], options: Mapping[str, Any]
) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    if name not in TYPES:
        names = [f"transformers/{kind}" for kind in TYPES]
        hint = " (a folder of that name does not exist)" if "/" in name or "." in name else ""
        raise unknown(f"encoder{hint}", f"transformers/{name}", names)
    config = AutoConfig.for_model(name)
    known = config.to_dict()
    for key in options:
        if key not in known:  # transformers would take it and never look at it
            raise unknown(f"option of encoder transformers/{name}", key, known)
    square = isinstance(known.get("image_size"), int) and sides[0] == sides[1]
    facts = {"num_channels": channels, "image_size": sides[0] if square else list(sides)}
    settings = {key: value for key, value in facts.items() if key in known} | dict(options)
    if channels != 3 and "num_channels" not in known:
        raise UserError(f"encoder transformers/{name}: takes RGB, the data have {channels} bands")
    config = AutoConfig.for_model(name, **settings)
    _refuse_attention_dropout(config)
    model: nn.Module = AutoModel.from_config(config, **without_pooler(config))
    return model


def _from_folder(
    folder: Path, channels: int, options: Mapping[str, Any]
) -> tuple[nn.Module, WeightReport | None]:
    from transformers import AutoConfig, AutoModel

    if options:
        raise UserError(
            f"encoder option {next(iter(options))}: {folder} brings its own config; give a model "
            "type such as transformers/vit to choose options"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"encoder transformers/{folder}: the folder has no config.json")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    _refuse_attention_dropout(config)
    wanted = getattr(config, "num_channels", channels)
    if wanted != channels:
        raise UserError(
            f"encoder transformers/{folder}: made for {wanted} channels, the data have {channels}"
        )
    extra = without_pooler(config)
    if not any(folder.glob("*.safetensors")):
        if any(folder.glob("*.bin")):
            raise UserError(
                f"encoder transformers/{folder}: its weights are no safetensors, and other formats "
                "can run code when loaded; convert them with save_pretrained"
            )
        return AutoModel.from_config(config, **extra), None
    model, info = AutoModel.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        **extra,
    )
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    names = [name for name in model.state_dict() if name not in {*missing, *mismatched}]
    unused = sorted(info["unexpected_keys"])
    report = WeightReport(names, [*missing, *mismatched], mismatched, unused)
    if report.share < _MINIMUM:
        raise UserError(f"encoder transformers/{folder}: its weights do not fit: {report}")
    return model, report


def without_pooler(config: Any) -> dict[str, bool]:
    """`add_pooling_layer=False` for models whose pooler is a layer of a task that is not ours."""
    from transformers import AutoModel

    kind = AutoModel._model_mapping[type(config)]
    kinds = kind if isinstance(kind, (list, tuple)) else [kind]
    taken = inspect.signature(kinds[0].__init__).parameters
    pools = "swin" in config.model_type or config.model_type in ("beit", "data2vec-vision", "hiera")
    return {} if pools or "add_pooling_layer" not in taken else {"add_pooling_layer": False}


def _refuse_attention_dropout(config: Any) -> None:
    for key, value in config.to_dict().items():
        if "attention" in key and "drop" in key and isinstance(value, float) and value > 0:
            raise UserError(
                f"encoder option {key}: {value} draws unrepeatable numbers inside attention; set "
                "it to 0"
            )


def _prepare(encoder: TransformersEncoder, channels: int, sides: tuple[int, int]) -> int:
    """Freezes what no feature depends on, and measures the width, by shapes alone (meta device)."""
    trial = copy.deepcopy(encoder).to("meta").eval()
    features = trial(torch.zeros(2, channels, *sides, device="meta"))
    sums = [features.pooled.sum(), features.tokens.sum()]
    wanted = {name: p for name, p in trial.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(sum(sums), list(wanted.values()), allow_unused=True)
    unused = {name for name, grad in zip(wanted, found, strict=True) if grad is None}
    for name, parameter in encoder.named_parameters():
        if name in unused:
            parameter.requires_grad_(False)
    return features.pooled.shape[1]


def _sides(config: Any) -> tuple[int, int] | None:
    """Height and width that a config's positions are made for."""
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    return None if size is None else (int(size[0]), int(size[1]))
