"""Lines for a model card that load an export."""

from __future__ import annotations

from pathlib import Path


def loading(format: str, path: Path) -> str | None:
    """Python that loads what `export --format` wrote; None for the core's own formats."""
    if format == "timm" and path.is_dir():
        return (
            "import timm\n"
            'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()\n'
            "pooled = model(inputs)"
        )
    if format == "timm":
        return (
            "import timm\n"
            "from safetensors.torch import load_file\n"
            "model = timm.create_model(NAME, num_classes=0, in_chans=CHANNELS)\n"
            f'model.load_state_dict(load_file("{path.name}"))'
        )
    if format == "transformers":
        return (
            "from transformers import AutoModel\n"
            "# add_pooling_layer=False for a ViTModel: that layer was never trained\n"
            'states = AutoModel.from_pretrained("FOLDER")(pixel_values=inputs)'
        )
    if format == "torchvision":
        return (
            "import json, torchvision\n"
            "from safetensors.torch import load_file\n"
            'config = json.load(open("config.json"))\n'
            'build = getattr(torchvision.models, config["model"])\n'
            'model = build(**config["arguments"])\n'
            'model.load_state_dict(load_file("model.safetensors"), strict=False)  # no classifier'
        )
    return None
