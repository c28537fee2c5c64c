"""Exports as transformers loads them, each answering as the encoder does on a stored input."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import ASTFeatureExtractor, ASTModel, AutoModel, Wav2Vec2Model

import ssl_audio
from ssl_audio.domain import AUDIO
from ssl_audio.reader import plain_spectrogram
from ssl_audio.waves import Waves
from ssl_core.errors import UserError

OPTIONS = {"dim": 16, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    AUDIO.samples(folder / "data", count=20, seed=0)

    def run(encoder: str, *, views: str = "none", **options):
        settings = {"train.steps": 1, "train.batch_size": 4, "data.workers": 0}
        settings |= {f"encoder.{key}": value for key, value in (OPTIONS | options).items()}
        settings |= {"views.name": views, "method.hidden": 8, "method.dim": 4}
        settings |= {"data.options.features": "fbank128"} if encoder.startswith("ast") else {}
        return ssl_audio.pretrain(
            data=folder / "data",
            out=folder / encoder,
            method="lejepa",
            encoder=encoder,
            settings=settings,
        )

    return run


def test_an_ast_is_transformers_own(made, tmp_path) -> None:
    run = made("ast_tiny", views="mae", stride=16)
    folder = ssl_audio.export(run, tmp_path / "ast", format="transformers")
    example = load_file(folder / "model.example.safetensors")
    network = ASTModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found = network(example["input"][:, 0].transpose(1, 2)).pooler_output
    torch.testing.assert_close(found, example["pooled"], atol=1e-5, rtol=1e-5)
    model = ssl_audio.load(run)
    with torch.no_grad():
        assert torch.equal(model.encoder(example["input"]).pooled, example["pooled"])
    assert "AutoModel.from_pretrained" in (folder / "README.md").read_text()
    # The extractor computes what the reader does.
    spec = model.reader.spec
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    wave = torch.randn(spec["frames"] * 160 + 240, generator=torch.Generator().manual_seed(0)) / 9
    theirs = extractor(wave.numpy(), sampling_rate=16_000, return_tensors="pt")["input_values"]
    whole = Waves(
        (wave * 32768).round().to(torch.int16)[None],
        torch.tensor([len(wave)]),
        torch.tensor([16_000]),
    )
    ours = plain_spectrogram(whole, spec)[:, 0].transpose(1, 2)
    assert theirs.shape == ours.shape
    assert (theirs - ours).abs().median() < 1e-3  # int16 against float waves


def test_a_wave_encoder_is_a_wav2vec2(made, tmp_path) -> None:
    run = made("wave_nano", views="wave", width=8, positions=4)
    folder = ssl_audio.export(run, tmp_path / "wave", format="transformers")
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "wav2vec2"
    example = load_file(folder / "model.example.safetensors")
    for kind in (AutoModel, Wav2Vec2Model):
        with torch.no_grad():
            states = kind.from_pretrained(folder).eval()(F.pad(example["input"], (0, 80)))
        found = states.last_hidden_state
        torch.testing.assert_close(found.mean(1), example["pooled"], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        tokens = ssl_audio.load(run).encoder(example["input"]).tokens
    torch.testing.assert_close(tokens, found, atol=1e-5, rtol=1e-5)


def test_others_have_no_counterpart(made, tmp_path) -> None:
    run = made("spec_vit_nano_patch16", views="mae")
    with pytest.raises(UserError, match="PatchTransformer has no counterpart in transformers"):
        ssl_audio.export(run, tmp_path / "vit", format="transformers")
    path = ssl_audio.export(run, tmp_path / "vit.safetensors")
    example = load_file(tmp_path / "vit.example.safetensors")
    with torch.no_grad():
        pooled = ssl_audio.load(run).encoder(example["input"]).pooled
    assert torch.equal(pooled, example["pooled"])
    assert path.is_file()
