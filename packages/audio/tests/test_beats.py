"""BEATs' iterations: the direction codebook, the tokenizer's loss, a tokenizer as teacher."""

import pytest
import torch
import torch.nn.functional as F

import ssl_audio
from reference import OneView, draw, keys
from ssl_audio.domain import AUDIO
from ssl_audio.encoders.spectrogram_vit import spec_vit
from ssl_audio.methods.beats import BEATs
from ssl_audio.methods.beats_tokenizer import BEATsTokenizer
from ssl_audio.quantisers import DirectionCodebook
from ssl_core.errors import UserError
from ssl_core.methods.base import Step
from ssl_core.views import View

SPEC = {"mels": 8, "frames": 16}
TINY = {"dim": 8, "depth": 1, "heads": 2}
YES = torch.tensor(True)


def frames(count: int, dim: int) -> torch.Tensor:
    return F.normalize(draw(count, dim).detach().float(), dim=1)


def tokenizer(**options) -> BEATsTokenizer:
    torch.manual_seed(0)
    encoder, teacher = (spec_vit(SPEC, patch=4, frame=None, **TINY) for _ in range(2))
    settings = {"codes": 6, "code_dim": 4, "decoder_depth": 1, "decoder_heads": 2}
    return BEATsTokenizer(encoder, OneView(), teacher=teacher, **(settings | options))


def view(rows: int = 3) -> View:
    return View(draw(rows, 1, 8, 16).detach().float(), keys(rows))


def test_a_code_is_the_direction_of_the_largest_cosine_and_follows_what_it_names() -> None:
    book = DirectionCodebook(5, 4, momentum=0.9)
    x = frames(60, 4)
    book.update(x, torch.tensor(False))
    assert not book.begun
    book.update(x, YES)
    before = book.directions.clone()
    ids = book(x)
    distance = (x[:, None] - before).square().sum(-1)
    assert torch.equal(ids, distance.argmin(1))
    assert len(ids.unique()) == 5  # codes begin far apart
    used = x[ids < 3]
    book.update(2 * used, YES)
    named = ids[ids < 3]
    for code in range(5):
        mean = F.normalize(used[named == code].sum(0), dim=0)
        want = F.normalize(0.9 * before[code] + 0.1 * mean, dim=0) if code < 3 else before[code]
        torch.testing.assert_close(book.directions[code], want)


def test_tokenizer_loss_is_its_formula_and_passes_the_codes() -> None:
    method = tokenizer(beta=0.5)
    (rep,) = method.encode([view()])
    away = 1 - (F.normalize(rep.rebuilt, dim=-1) * F.normalize(rep.given, dim=-1)).sum(-1)
    pull = 2 - 2 * (rep.unit * rep.code).sum(-1)
    loss = method.loss([rep])
    torch.testing.assert_close(loss.total, away.mean() + 0.5 * pull.mean())
    assert torch.equal(rep.code, method.tokenizer.codebook.directions[rep.ids])
    # Straight through: the gradient of what was rebuilt from codes reaches the unit vectors.
    unit = torch.autograd.grad(away.mean(), rep.unit, retain_graph=True)[0]
    assert unit.abs().sum() > 0
    loss.total.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.encoder.parameters())


def test_the_estimator_sees_codes_alone() -> None:
    """Inputs with the same codes are rebuilt alike, whatever else their features say."""
    method = tokenizer(codes=2).eval()
    method.tokenizer.codebook.directions.copy_(torch.eye(4)[:2])
    with torch.no_grad():
        method.tokenizer.head[2].weight.zero_()
        method.tokenizer.head[2].bias.copy_(torch.tensor([3.0, 1.0, 0.5, 0.0]))
        (rep,) = method.encode([view()])
    assert not rep.ids.any()
    torch.testing.assert_close(rep.rebuilt, rep.rebuilt[:1].expand_as(rep.rebuilt))


def test_the_codebook_rests_on_bad_steps() -> None:
    method = tokenizer()
    method.encode([view()])
    before = method.tokenizer.codebook.directions.clone()
    method.after_step(Step(0, 4, torch.tensor(False)))
    assert torch.equal(method.tokenizer.codebook.directions, before)
    method.after_step(Step(0, 4, YES))
    assert not torch.equal(method.tokenizer.codebook.directions, before)


def test_teachers_that_do_not_fit_are_named() -> None:
    encoder = spec_vit(SPEC, patch=4, frame=None, **TINY)
    plain = BEATs(encoder, OneView(), teacher=spec_vit(SPEC, patch=4, frame=None, **TINY))
    with pytest.raises(UserError, match="give a run of method beats_tokenizer"):
        plain([view()])
    coarse = spec_vit(SPEC, patch=8, frame=None, **TINY)
    with pytest.raises(UserError, match="gives 8 tokens where the encoder has 2"):
        BEATsTokenizer(
            coarse, OneView(), teacher=encoder, code_dim=4, decoder_heads=2, decoder_depth=1
        )([view()])
    with pytest.raises(UserError, match="its patches hold 16 numbers, the encoder's 64"):
        BEATs(coarse, OneView(), mask_ratio=0.5, teacher=tokenizer().backbone)([view()])


def test_two_iterations_through_recipes(tmp_path) -> None:
    AUDIO.samples(tmp_path / "data", count=20, seed=0)
    small = {
        "train.steps": 2,
        "train.batch_size": 8,
        "data.workers": 0,
        "encoder.dim": 16,
        "encoder.depth": 1,
        "encoder.heads": 2,
    }

    def run(recipe: str, **more):
        settings = small | {f"method.{key}": value for key, value in more.items()}
        return ssl_audio.pretrain(
            recipe, data=tmp_path / "data", out=tmp_path / recipe, settings=settings
        )

    first = run("beats", codes=16)
    named = run("beats_tokenizer", teacher=str(first.path), codes=12, code_dim=8)
    with pytest.raises(UserError, match="codes: give their number, or a teacher"):
        run("beats_again")
    second = run("beats_again", teacher=str(named.path))
    model = ssl_audio.load(named)
    tokens = model.encoder.tokenize(AUDIO.example(model.reader.spec))
    with torch.no_grad():
        ids = model.encoder.name(tokens)
    assert ids.shape == tokens.values.shape[:2]
    assert int(ids.max()) < 12
    assert bool(model.encoder.codebook.begun)
    assert second.recipe.method.options["codes"] is None
    assert ssl_audio.load(second).encoder.embed_dim == 16 * 8
    with pytest.raises(UserError, match="load the run itself"):
        ssl_audio.export(named, tmp_path / "t.safetensors")
    assert not (tmp_path / "t.safetensors").exists()
