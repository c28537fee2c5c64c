"""transformers' vision models as encoders: by type, from a folder, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.networks.dropout import dropout_keys
from ssl_core.rng import Rng
from ssl_vision.encoders import create_encoder

transformers = pytest.importorskip("transformers")

PLAIN = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
TINY = {
    "vit": {**PLAIN, "intermediate_size": 48},
    "dinov2": PLAIN,
    "beit": {**PLAIN, "intermediate_size": 48, "drop_path_rate": 0.2},
    "swin": {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    "convnext": {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
}


def images(channels: int, side: int) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", TINY)
def test_a_model_type_takes_images_of_any_channels(kind: str) -> None:
    encoder = create_encoder(f"transformers/{kind}", {"channels": 5, "size": 32}, **TINY[kind])
    data, state = images(5, 32), torch.get_rng_state()
    with dropout_keys(Rng.at(0, 0, torch.arange(2))):
        features = encoder.train()(data)
    assert torch.equal(torch.get_rng_state(), state), "global random state was used"
    assert features.pooled.shape == (2, encoder.embed_dim)
    assert features.tokens.shape[:2] == (2, torch.Size(features.grid).numel())
    (features.pooled.square().sum() + features.tokens.square().sum()).backward()
    learned = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert {name for name, p in encoder.named_parameters() if p.grad is not None} == learned
    assert not [name for name in learned if "mask_token" in name]
    theirs = encoder.eval().model(pixel_values=data)
    with torch.no_grad():
        again = encoder(data)
    count = 0 if again.prefix is None else again.prefix.shape[1]
    last = theirs.last_hidden_state
    last = last.flatten(2).transpose(1, 2) if last.dim() == 4 else last
    torch.testing.assert_close(again.tokens, last[:, count:].detach())


def test_positions_follow_smaller_crops() -> None:
    encoder = create_encoder("transformers/vit", {"channels": 3, "size": 32}, **TINY["vit"])
    assert encoder(images(3, 16)).grid == (2, 2)


def test_a_folder_brings_config_and_weights(tmp_path: Path) -> None:
    config = transformers.ViTConfig(image_size=32, **TINY["vit"])
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    spec = {"channels": 3, "size": 32}
    encoder = create_encoder(f"transformers/{tmp_path}", spec).eval()
    with torch.no_grad():
        expected = theirs.vit(pixel_values=images(3, 32)).last_hidden_state
        assert torch.allclose(encoder(images(3, 32)).pooled, expected[:, 0], atol=1e-6)
    assert encoder.weight_report.share == 1
    assert {name.partition(".")[0] for name in encoder.weight_report.unused} == {"classifier"}
    with pytest.raises(UserError, match="made for 3 channels, the data have 4"):
        create_encoder(f"transformers/{tmp_path}", {"channels": 4, "size": 32})
    with pytest.raises(UserError, match="brings its own config"):
        create_encoder(f"transformers/{tmp_path}", spec, hidden_size=8)
    (tmp_path / "model.safetensors").unlink()
    assert not hasattr(create_encoder(f"transformers/{tmp_path}", spec), "weight_report")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="no safetensors"):
        create_encoder(f"transformers/{tmp_path}", spec)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        create_encoder(f"transformers/{tmp_path}", spec)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("vitt", {}, "did you mean 'transformers/vit'"),
        ("no/such/folder", {}, "a folder of that name does not exist"),
        ("vit", {"hiden_size": 8}, "did you mean 'hidden_size'"),
        ("vit", {"attention_probs_dropout_prob": 0.1}, "set it to 0"),
        ("vit", {"hidden_act": "none"}, "or these options"),
    ],
)
def test_what_is_wrong_is_said(name: str, options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        create_encoder(f"transformers/{name}", {"channels": 3, "size": 32}, **options)
