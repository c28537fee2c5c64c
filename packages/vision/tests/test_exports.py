"""Exports as other libraries load them, each answering as the encoder does."""

import json

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

import ssl_vision
from ssl_core.errors import UserError
from ssl_core.runs import exporting
from ssl_vision.encoders import create_encoder
from ssl_vision.segmentation.scenes import write_scenes


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photos"
    write_scenes(path, count=24)
    return path / "images"


@pytest.fixture(scope="module")
def make(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")

    def made(name: str, encoder: str, **options):
        settings = {"train.steps": 1, "train.batch_size": 8, "data.workers": 0}
        settings |= {f"encoder.{key}": value for key, value in options.items()}
        return ssl_vision.pretrain(
            data=photos, out=folder / name, method="simclr", encoder=encoder, settings=settings
        )

    return made


@pytest.fixture(scope="module")
def vit(make):
    return make("vit", "vit_nano_patch8", pool="cls", dim=48, depth=2, heads=2)


def answers(folder, network):
    example = load_file(folder / "model.example.safetensors")
    with torch.no_grad():
        return network.eval()(example["input"]), example["pooled"]


def front_matter(card):
    text = card.read_text()
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1]), text


def test_a_safetensors_file_is_proven_and_has_a_card(vit, tmp_path) -> None:
    path = ssl_vision.export(vit, tmp_path / "e.safetensors")
    example = load_file(tmp_path / "e.example.safetensors")
    assert example["input"].shape == (2, 3, 24, 24)
    assert torch.equal(ssl_vision.load(vit).encoder(example["input"]).pooled, example["pooled"])
    head, text = front_matter(tmp_path / "README.md")
    assert head["pipeline_tag"] == "image-feature-extraction"
    assert "simclr" in head["tags"]
    assert "load_file(" in text
    assert "view retrieval" in text
    assert path.is_file()


def test_a_readme_of_the_user_stays(vit, tmp_path) -> None:
    (tmp_path / "README.md").write_text("mine")
    ssl_vision.export(vit, tmp_path / "e.safetensors")
    ssl_vision.export(vit, tmp_path / "e.safetensors")
    assert (tmp_path / "README.md").read_text() == "mine"
    front_matter(tmp_path / "e.README.md")


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("vit_nano_patch8", {"pool": "mean", "layer_scale": 0.1, "depth": 1}),
        ("resnet10t", {"stem": "imagenet"}),
        ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": 48, "patch_size": 8}),
    ],
)
def test_timm_loads_the_folder(make, tmp_path, encoder, options) -> None:
    run = make(f"timm-{encoder}", encoder, **options)
    folder = ssl_vision.export(run, tmp_path / "t", format="timm")
    found, expected = answers(folder, timm.create_model(f"local-dir:{folder}", pretrained=True))
    assert torch.allclose(found, expected, atol=1e-5)
    assert front_matter(folder / "README.md")[0]["library_name"] == "timm"


def test_transformers_loads_the_folder(vit, make, tmp_path) -> None:
    AutoModel = pytest.importorskip("transformers").AutoModel

    folder = ssl_vision.export(vit, tmp_path / "t", format="transformers")
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    found, expected = answers(folder, model)
    assert type(model).__name__ == "ViTModel"
    assert torch.allclose(found.last_hidden_state[:, 0], expected, atol=1e-5)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 24, "width": 24}
    scaled = make("scaled", "vit_nano_patch8", depth=1, layer_scale=0.1)
    folder = ssl_vision.export(scaled, tmp_path / "d", format="transformers")
    found, expected = answers(folder, AutoModel.from_pretrained(folder))
    assert torch.allclose(found.last_hidden_state[:, 1:].mean(1), expected, atol=1e-5)
    run = make("wrapped", "resnet10t", stem="imagenet")
    folder = ssl_vision.export(run, tmp_path / "w", format="transformers")
    found, expected = answers(folder, AutoModel.from_pretrained(folder))
    assert torch.allclose(found.pooler_output, expected, atol=1e-5)


def test_a_network_of_transformers_is_saved_as_one(make, tmp_path) -> None:
    AutoModel = pytest.importorskip("transformers").AutoModel

    tiny = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
    run = make("dinov2", "transformers/dinov2", **tiny)
    folder = ssl_vision.export(run, tmp_path / "t", format="transformers")
    found, expected = answers(folder, AutoModel.from_pretrained(folder))
    assert torch.allclose(found.pooler_output, expected, atol=1e-5)
    again = create_encoder(f"transformers/{folder}", {"channels": 3, "size": 24})
    features, expected = answers(folder, again)
    assert torch.allclose(features.pooled, expected, atol=1e-5)


def test_torchvision_takes_the_weights(vit, make, tmp_path) -> None:
    import torchvision

    folder = ssl_vision.export(vit, tmp_path / "v", format="torchvision")
    config = json.loads((folder / "config.json").read_text())
    network = getattr(torchvision.models, config["model"])(**config["arguments"])
    network.heads = torch.nn.Identity()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    found, expected = answers(folder, network)
    assert torch.allclose(found, expected, atol=1e-5)
    run = make("squeeze", "torchvision/shufflenet_v2_x0_5")
    folder = ssl_vision.export(run, tmp_path / "s", format="torchvision")
    network = torchvision.models.shufflenet_v2_x0_5()
    network.fc = torch.nn.Identity()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    found, expected = answers(folder, network)
    assert torch.allclose(found, expected, atol=1e-5)


def test_onnx_answers_for_any_batch(vit, tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = ssl_vision.export(vit, tmp_path / "o", format="onnx")
    example = load_file(folder / "model.example.safetensors")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    images = example["input"].repeat(2, 1, 1, 1)[:3]
    (found,) = session.run(None, {"input": images.numpy()})
    assert torch.allclose(torch.from_numpy(found)[:2], example["pooled"], atol=1e-4)
    assert "onnxruntime" in (folder / "README.md").read_text()


def test_what_has_no_counterpart_says_what_to_use(make, monkeypatch, tmp_path) -> None:
    pytest.importorskip("transformers")
    run = make("nano", "resnet_nano")
    for format in ("timm", "torchvision", "transformers"):
        with pytest.raises(UserError, match="counterpart"):
            ssl_vision.export(run, tmp_path / format, format=format)
    mean = make("mean", "vit_nano_patch8", depth=1)
    with pytest.raises(UserError, match="class token"):
        ssl_vision.export(mean, tmp_path / "x", format="torchvision")
    with pytest.raises(UserError, match="must be a folder"):
        ssl_vision.export(mean, tmp_path / "x.onnx", format="onnx")
    from ssl_core.runs import onnx_format

    monkeypatch.setattr(onnx_format, "_NEEDED", ("no_such_package",))
    with pytest.raises(UserError, match=r"ssl-core\[onnx\]"):
        ssl_vision.export(mean, tmp_path / "x", format="onnx")


def test_a_file_that_answers_otherwise_does_not_stay(vit, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(exporting, "_rebuilt", lambda *_: lambda data: torch.zeros(2, 48))
    with pytest.raises(exporting.ExportDiffers, match="differs from the encoder's"):
        ssl_vision.export(vit, tmp_path / "e.safetensors")
    assert not (tmp_path / "e.safetensors").exists()
