"""The audio domain as the command walks it: samples, recipes, encoders, public names."""

import hashlib
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import ASTModel

import ssl_audio
from ssl_audio.domain import AUDIO
from ssl_core.batch import Batch
from ssl_core.data import open_source
from ssl_core.errors import UserError
from ssl_core.rng import Rng
from ssl_core.runs.config import build, recipe_names

SPEC = {
    "rate": 16_000,
    "features": "mel64",
    "mels": 64,
    "frames": 96,
    "seconds": 0.96,
    "mean": 0.0,
    "std": 3.0,
}


def test_samples_repeat_and_voices_stay_on_their_side(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        AUDIO.samples(tmp_path / name, count=40, seed=seed)
    hashes = [
        {
            str(p.relative_to(tmp_path / n)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in (tmp_path / n).rglob("*.*")
        }
        for n in "abc"
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    endings = [Path(name).suffix for name in hashes[0]]
    assert [endings.count(x) for x in (".wav", ".flac", ".csv")] == [28, 12, 1]
    source = open_source(tmp_path / "a" / "labels.csv", suffixes=[".wav", ".flac"])
    assert len(source) == 40
    metas = [source[i].meta for i in range(40)]
    voices = [
        {m["speaker"] for m in metas if m["split"] == side and m["speaker"]}
        for side in ("train", "test")
    ]
    assert voices[0]
    assert not voices[0] & voices[1]
    with pytest.raises(UserError, match="count: 19"):
        AUDIO.samples(tmp_path / "d", count=19, seed=0)
    with pytest.raises(UserError, match="not empty"):
        AUDIO.samples(tmp_path / "a", count=20, seed=0)


@pytest.mark.parametrize("name", recipe_names(AUDIO))
def test_recipes_are_valid(name: str) -> None:
    from ssl_audio.features import PRESETS
    from ssl_audio.options import ReaderOptions
    from ssl_audio.waves import Waves

    # Their user names the teacher.
    taught = name in ("seed", "feature_distillation", "beats_tokenizer", "beats_again")
    recipe = build(AUDIO, name, assignments=["method.teacher=RUN"] if taught else [])
    features = ReaderOptions.of(recipe.data.options).features
    spec = {**SPEC, "features": features, "mels": PRESETS[features].mels}
    policy = AUDIO.create_views(recipe.views.name, spec, recipe.views.options)
    ids = torch.arange(2)
    waves = Waves(torch.ones(2, 16_000, dtype=torch.int16), ids + 16_000, ids * 0 + 16_000)
    views = policy(Batch(waves, ids, ids), Rng.at(0, 0, ids))
    assert all(torch.isfinite(view.data).all() for view in views)
    assert recipe.method.name in AUDIO.methods
    if not any(size in recipe.encoder.name for size in ("base", "small")):
        encoder = AUDIO.create_encoder(
            recipe.encoder.name, {**spec, **policy.spec}, recipe.encoder.options
        )
        options = recipe.method.options | ({"teacher": deepcopy(encoder)} if taught else {})
        method = AUDIO.methods.build(recipe.method.name, encoder, policy, options=options)
        assert method.backbone.embed_dim > 0


def test_ast_is_transformers_own() -> None:
    encoder = AUDIO.create_encoder("ast_tiny", SPEC, {"stride": 16}).eval()
    x = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    features = encoder(x)
    assert features.grid == (4, 6)
    assert features.tokens.shape == (2, 24, 192)
    weights, config = encoder.transformers_state()
    other = ASTModel(ASTModel.config_class(**config)).eval()
    other.load_state_dict(weights)
    torch.testing.assert_close(
        other(x[:, 0].transpose(1, 2)).pooler_output, features.pooled, atol=1e-6, rtol=1e-5
    )
    with pytest.raises(UserError, match="built for 96 frames, got 64"):
        encoder(x[..., :64])


def test_spectrogram_tokens_go_and_come_back() -> None:
    x = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    for name, grid in (("spec_vit_nano_patch16", (4, 6)), ("spec_vit_nano_frame4", (1, 24))):
        encoder = AUDIO.create_encoder(name, SPEC, {})
        tokens = encoder.tokenize(x)
        assert tokens.grid == grid
        assert torch.equal(encoder.assemble(tokens.values, grid), x)
        longer = torch.cat([x, x], dim=3)
        assert encoder(longer).tokens.shape[1] == 2 * tokens.values.shape[1]
    with pytest.raises(UserError, match="do not divide 64"):
        AUDIO.create_encoder(
            "spec_vit_nano_patch16", {**SPEC, "mels": 60 + 4, "frames": 96}, {"patch": 24}
        )


def test_wave_encoder_makes_a_frame_of_every_twenty_milliseconds() -> None:
    encoder = AUDIO.create_encoder(
        "wave_nano", SPEC, {"dim": 16, "depth": 1, "width": 8, "heads": 2}
    )
    x = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    assert encoder(x).tokens.shape == (2, 50, 16)
    torch.testing.assert_close(
        encoder.contextual(encoder.local(x)).pooled, encoder(x).pooled, atol=1e-6, rtol=1e-5
    )
    with pytest.raises(UserError, match="use views 'wave'"):
        encoder(x[:, None, None])


def test_public_names() -> None:
    assert ssl_audio.AUDIO is AUDIO
    for name in ssl_audio.__all__:
        assert getattr(ssl_audio, name) is not None
    assert AUDIO.abilities()["FLAC"] == "libsndfile"
