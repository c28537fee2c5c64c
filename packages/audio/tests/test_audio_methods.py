"""The domain's own methods: released values, closed forms, causality, what carries no gradient."""

import math

import pytest
import torch
import torch.nn.functional as F

from reference import OneView, assert_gradients, draw, golden, keys
from ssl_audio.alterations import KEEP, SWAP, ZERO, Alteration, Altered
from ssl_audio.encoders.recurrent import CPCEncoder, SpectrogramGRU
from ssl_audio.encoders.spectrogram_vit import spec_vit
from ssl_audio.encoders.wave import wave_transformer
from ssl_audio.masks import ClusterMasker
from ssl_audio.methods.apc import APC, shifted_l1
from ssl_audio.methods.atst_frame import ATSTFrame, frame_byol
from ssl_audio.methods.cpc import CPC
from ssl_audio.methods.hubert import HuBERT
from ssl_audio.methods.ssast import SSAST
from ssl_audio.methods.tera import TERA
from ssl_audio.methods.wav2vec2 import Wav2Vec2, contrast
from ssl_audio.objectives import code_diversity, frame_nce, other_moments, patch_nce
from ssl_audio.quantisers import GumbelQuantiser, OnlineKMeans, RandomProjectionQuantiser
from ssl_core.errors import UserError
from ssl_core.methods.base import Step
from ssl_core.objectives import masked_mean, mse
from ssl_core.views import View

SPEC = {"mels": 8, "frames": 16}
TINY = {"dim": 8, "depth": 1, "heads": 2}
VIEWS = OneView()


def spectrograms(rows: int = 2, frames: int = 16) -> torch.Tensor:
    return draw(rows, 1, 8, frames).detach().float()


# SSAST


def test_ssast_losses_of_released_code() -> None:
    case = golden("ssast/mspm_losses")
    c, r = (case[f"pred_{name}"].requires_grad_() for name in ("disc", "gen"))
    x = case["target_patches"]
    named = patch_nce(c, x, over="predictions")
    torch.testing.assert_close(named, case["loss_disc"], rtol=1e-9, atol=0)
    torch.testing.assert_close(
        patch_nce(c, x), case["loss_disc_paper_direction"], rtol=1e-9, atol=0
    )
    torch.testing.assert_close(mse(r, x), case["loss_gen"], rtol=1e-9, atol=0)
    torch.testing.assert_close(named + 10 * mse(r, x), case["loss_total"], rtol=1e-9, atol=0)
    assert_gradients(named + mse(r, x), [c, r], [case["grad_pred_disc"], case["grad_pred_gen"]])


def test_patch_nce_in_the_limits() -> None:
    eye = torch.eye(6, dtype=torch.float64)[None]
    assert patch_nce(60 * eye, eye) < 1e-12
    assert float(patch_nce(draw(1, 6, 4).detach(), torch.ones(1, 6, 4).double())) == pytest.approx(
        math.log(6)
    )


def test_cluster_masks_are_exact_and_clustered() -> None:
    mask = ClusterMasker()(keys(40), 512, grid=(8, 64))
    assert (mask.hidden.sum(1) == 400).all()
    grid = mask.hidden.reshape(-1, 8, 64)
    beside = (grid[:, :, 1:] & grid[:, :, :-1]).sum() / grid.sum()
    assert beside > 0.8  # uniform: 0.78 x 63/64
    rate = grid.float().mean(0)
    assert rate.min() > 0.55  # no corner is left out
    assert rate.mean(1).max() - rate.mean(1).min() < 0.15


def test_ssast_weight_zero_stops_the_drawing_head() -> None:
    encoder = spec_vit(SPEC, patch=4, frame=None, **TINY)
    method = SSAST(encoder, VIEWS, mask_ratio=0.5, sides=(2,), weight=0.0)
    method([View(spectrograms(), keys(2))]).total.backward()
    assert all(not p.grad.any() for p in method.drawing.parameters())
    assert any(p.grad.any() for p in method.naming.parameters())


def test_ssast_shows_what_it_hides_and_draws() -> None:
    encoder = spec_vit(SPEC, patch=4, frame=None, **TINY)
    method = SSAST(encoder, VIEWS, mask_ratio=0.5, sides=(2,)).eval()
    x = spectrograms()
    with torch.no_grad():
        shown = method.shown([View(x, keys(2))])
    seen = ~shown["hidden"].isnan()
    assert seen.float().mean() == 0.5
    assert torch.equal(shown["drawn"][seen], x[seen])
    assert not torch.equal(shown["drawn"], x)


def test_ssast_normalised_patches_forget_level_and_scale() -> None:
    torch.manual_seed(0)
    encoder = spec_vit(SPEC, patch=4, frame=None, **TINY)
    method = SSAST(encoder, VIEWS, mask_ratio=0.5, sides=(2,), norm_patches=True).eval()
    x = spectrograms()
    with torch.no_grad():
        (first,) = method.encode([View(x, keys(2))])
        (louder,) = method.encode([View(2 * x + 5, keys(2))])
        shown = method.shown([View(x, keys(2))])
    torch.testing.assert_close(louder[2], first[2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first[2].mean(-1), torch.zeros(2, 4), atol=1e-5, rtol=0)
    patches = encoder.tokenize(x).values
    mask = method.masker(keys(2), patches.shape[1], grid=(2, 4)).hidden
    std, mean = torch.std_mean(patches[mask], -1, keepdim=True)
    drawn = encoder.tokenize(shown["drawn"]).values[mask]
    torch.testing.assert_close(drawn, first[1].flatten(0, 1) * std + mean, atol=1e-4, rtol=1e-4)


# TERA


def given(case: dict, name: str, action: int) -> tuple[torch.Tensor, Altered]:
    """The released alteration as parameters of ours."""
    scored = case[f"{name}_lossmask"].transpose(1, 2)  # [B, F, T]
    x = case["spec"].transpose(1, 2)
    frames = scored.all(1)
    bands = (scored | frames[:, None]).all(2) if name != "time_zero" else scored.new_zeros(3, 20)
    source = torch.arange(60).expand(3, -1)
    return x, Altered(frames, torch.full((3,), action), source, bands, torch.zeros_like(x))


@pytest.mark.parametrize(("name", "action"), [("time_zero", ZERO), ("time_keep", KEEP)])
def test_tera_alterations_of_released_code(name: str, action: int) -> None:
    case = golden("tera/alterations")
    x, altered = given(case, name, action)
    altered.bands[:] = False
    out, scored = Alteration().apply(x, altered)
    assert torch.equal(out, case[f"{name}_input"].transpose(1, 2))
    assert torch.equal(scored, case[f"{name}_lossmask"].transpose(1, 2))


def test_tera_loss_of_released_code() -> None:
    case = golden("tera/alterations")
    for name in ("time_zero", "time_freq"):
        error = (case["pred"] - case["spec"]).abs().double()
        got = masked_mean(error, case[f"{name}_lossmask"])
        torch.testing.assert_close(got, case[f"l1_{name}"], rtol=1e-6, atol=0)


def test_tera_draws_what_it_says() -> None:
    rows, frames, bands = 600, 100, 20
    drawn = Alteration().sample(keys(rows), bands, frames)
    assert 0.12 < drawn.frames.float().mean() <= 0.15
    assert drawn.frames[:, -1].any()
    shares = torch.bincount(drawn.action, minlength=3) / rows
    torch.testing.assert_close(shares, torch.tensor([0.8, 0.1, 0.1]), atol=0.05, rtol=0)
    assert drawn.bands.sum(1).max() == 4
    x = draw(rows, bands, frames).detach().float()
    out, scored = Alteration().apply(x, drawn)
    quiet = ~drawn.noise.flatten(1).any(1)
    assert 0.1 < 1 - quiet.float().mean() < 0.2
    assert torch.equal(out[quiet][~scored[quiet]], x[quiet][~scored[quiet]])
    moved = drawn.frames & (drawn.action == SWAP)[:, None] & quiet[:, None]
    row, frame = moved.nonzero()[0].tolist()
    band = int((~drawn.bands[row]).nonzero()[0])
    assert out[row, band, frame] == x[row, band, drawn.source[row, frame]]


def test_tera_normalised_patches_forget_level_and_scale() -> None:
    torch.manual_seed(0)
    encoder = spec_vit(SPEC, patch=4, frame=None, **TINY)
    method = TERA(encoder, VIEWS, norm_patches=True).eval()
    x = spectrograms()
    with torch.no_grad():
        ((restored, target, _),) = method.encode([View(x, keys(2))])
        ((_, louder, _),) = method.encode([View(2 * x + 5, keys(2))])
        shown = method.shown([View(x, keys(2))])["restored"]
    torch.testing.assert_close(louder, target, atol=1e-4, rtol=1e-4)
    patches = encoder.tokenize(target[:, None]).values
    torch.testing.assert_close(patches.mean(-1), torch.zeros(patches.shape[:2]), atol=1e-5, rtol=0)
    std, mean = torch.std_mean(encoder.tokenize(x).values, -1, keepdim=True)
    made = encoder.tokenize(restored[:, None]).values
    torch.testing.assert_close(encoder.tokenize(shown).values, made * std + mean)


def test_tera_axes_are_switches() -> None:
    whole = Alteration().sample(keys(50), 20, 100)
    only = Alteration(frequency=0.0, magnitude=0.0).sample(keys(50), 20, 100)
    assert torch.equal(whole.frames, only.frames)
    assert not only.bands.any()
    assert not only.noise.any()
    x = draw(50, 20, 100).detach()
    nothing = Alteration(time=0.0, frequency=0.0, magnitude=0.0)
    out, scored = nothing.apply(x, nothing.sample(keys(50), 20, 100))
    assert torch.equal(out, x)
    assert not scored.any()
    with pytest.raises(ValueError, match="all 0"):
        TERA(spec_vit(SPEC, patch=None, frame=1, **TINY), VIEWS, time=0, frequency=0, magnitude=0)


# APC, CPC


def test_apc_of_released_code() -> None:
    case = golden("apc/shifted_l1")
    x, names = case["x"], ("w_in", "w_rec", "w_out")
    w_in, w_rec, w_out = leaves = [case[name].requires_grad_() for name in names]
    state, outputs = torch.zeros(2, 5).double(), []
    for t in range(x.shape[1] - int(case["n_future"])):
        state = torch.tanh(x[:, t] @ w_in + state @ w_rec)
        outputs.append(state @ w_out)
    loss = shifted_l1(torch.stack(outputs, 1), x, ahead=int(case["n_future"]))
    torch.testing.assert_close(loss, case["loss"], rtol=1e-10, atol=0)
    assert_gradients(loss, leaves, [case[f"grad_{name}"] for name in names])


def test_shifted_l1_of_constants_and_walks() -> None:
    still = torch.ones(1, 20, 3)
    assert shifted_l1(still, still, ahead=4) == 0
    walk = draw(1, 400, 3).detach().cumsum(1)
    errors = [float(shifted_l1(walk, walk, ahead=n)) for n in (1, 5, 20)]
    assert errors == sorted(errors)


@pytest.mark.parametrize("kind", ["gru", "cpc"])
def test_causal_encoders_do_not_hear_the_future(kind: str) -> None:
    if kind == "gru":
        encoder, x, cut, step = SpectrogramGRU(8, dim=6, depth=2), spectrograms(2, 20), 11, 1
    else:
        encoder, x, cut, step = CPCEncoder(width=6, dim=6, depth=1), draw(2, 3200).float(), 11, 160
    changed = x.detach().clone()
    changed[..., cut * step :] = 0
    before, after = (encoder(data).tokens for data in (x.detach(), changed))
    assert torch.equal(before[:, :cut], after[:, :cut])
    assert not torch.equal(before[:, cut:], after[:, cut:])
    assert before.shape[1] == 20


def test_future_prediction_knows_what_order_is() -> None:
    """Equal moments cost log(K + 1); a perfect predictor of a counter costs nothing."""
    method = CPC(CPCEncoder(width=4, dim=4, depth=1), VIEWS, steps=1, negatives=128)
    same = torch.ones(2, 30, 4)
    assert float(method._step(1, same, same, keys(2)).detach()) == pytest.approx(
        math.log(129), rel=1e-5
    )
    clock = 40 * torch.eye(30)[None].expand(2, -1, -1)
    method.width = 1
    method.predictors = torch.nn.ModuleList([torch.nn.Identity()])
    future = clock.roll(-1, 1)
    assert method._step(1, clock, future, keys(2)) < 1e-3
    assert method._step(1, clock.flip(1), future, keys(2)) > 1


def test_wrong_encoders_are_named() -> None:
    vit = spec_vit(SPEC, patch=4, frame=None, **TINY)
    for method, name in ((APC, "gru_nano"), (CPC, "cpc_nano"), (HuBERT, "wave_nano")):
        with pytest.raises(UserError, match=name):
            method(vit, VIEWS)
    with pytest.raises(UserError, match="frame4"):
        ATSTFrame(vit, VIEWS).encode([View(spectrograms(), keys(2))] * 2)


# wav2vec 2.0


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_wav2vec2_of_released_code(mode: str) -> None:
    case = golden("wav2vec2/contrastive_diversity")
    quantiser = GumbelQuantiser(6, 8, groups=2, codes=5).double()
    z, context, conv = (case[n].requires_grad_() for n in ("z_masked", "context", "conv_features"))
    with torch.no_grad():
        quantiser.logits.weight.copy_(case["proj_weight"])
        quantiser.logits.bias.copy_(case["proj_bias"])
        quantiser.codebook.copy_(case["codebook"].reshape(2, 5, 4))
    noise = case["train_gumbel_noise"].reshape(2, 7, 2, 5) if mode == "train" else None
    quantised, probabilities, codes = quantiser(
        z, temperature=float(case["gumbel_temperature"]), noise=noise
    )
    torch.testing.assert_close(quantised, case[f"{mode}_quantised"], rtol=1e-8, atol=1e-10)
    others = case[f"{mode}_neg_index"].reshape(2, 7, 6) - 7 * torch.arange(2)[:, None, None]
    valid = torch.ones(2, 7, dtype=torch.bool)
    loss = contrast(context, quantised, codes, others, valid, 0.1)
    torch.testing.assert_close(14 * loss, case[f"{mode}_contrastive_sum"], rtol=1e-8, atol=0)
    total = loss + 0.1 * code_diversity(probabilities, valid) + 10 * conv.square().mean()
    torch.testing.assert_close(14 * total, case[f"{mode}_total_sum"], rtol=1e-8, atol=0)
    leaves = [context, conv, quantiser.codebook]
    wants = [case[f"{mode}_grad_{n}"] for n in ("context", "features", "codebook")]
    wants[2] = wants[2].reshape(2, 5, 4)
    for got, want in zip(torch.autograd.grad(14 * total, leaves), wants, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-10)


def test_codes_do_not_fade_with_small_features() -> None:
    """The penalty makes the convolutions' output small; the quantiser must not see that."""
    method = Wav2Vec2(tiny_wave(), VIEWS, dim=8, codes=6, negatives=5, span=4).eval()
    view = View(draw(3, 6400).detach().float(), keys(3))
    (loud,) = method.encode([view])
    original = method.encoder.local
    method.encoder.local = lambda wave: 0.3 * original(wave)  # type: ignore[assignment]
    (quiet,) = method.encode([view])
    torch.testing.assert_close(quiet.local, 0.3 * loud.local)
    assert torch.equal(quiet.codes, loud.codes)
    torch.testing.assert_close(quiet.probabilities, loud.probabilities, atol=1e-2, rtol=0)


def test_diversity_in_the_limits() -> None:
    even = torch.full((1, 10, 2, 5), 0.2, dtype=torch.float64)
    assert abs(float(code_diversity(even))) < 1e-5
    one = F.one_hot(torch.zeros(1, 10, 2, dtype=torch.long), 5).double()
    assert float(code_diversity(one)) == pytest.approx((10 - 2) / 10, abs=1e-5)


def test_negatives_are_never_the_own_moment() -> None:
    own = torch.arange(9).expand(4, -1)
    others = other_moments(keys(4), "n", own, torch.tensor([9, 5, 2, 9]), 50)
    assert (others != own.unsqueeze(-1)).all()
    assert others[1, :5].max() == 4
    assert set(others[0, 3].tolist()) == set(range(9)) - {3}
    assert float(frame_nce(torch.zeros(2, 3), torch.zeros(2, 3, 100))) == pytest.approx(
        math.log(101)
    )


# HuBERT, BEATs, ATST-Frame


def tiny_wave(seed: int = 0):
    torch.manual_seed(seed)
    return wave_transformer({}, width=8, dim=16, depth=2, heads=2, positions=4, groups=2)


def test_kmeans_finds_separate_clouds_and_rests_on_bad_steps() -> None:
    centres = 10 * torch.eye(4)
    truth = torch.arange(400) % 4
    frames = centres[truth] + 0.1 * draw(400, 4).detach().float()
    kmeans = OnlineKMeans(4, 4)
    kmeans.update(frames, torch.tensor(False))
    assert not kmeans.won.any()
    for _ in range(3):
        kmeans.update(frames, torch.tensor(True))
    found = kmeans(frames)
    assert all(len(found[truth == i].unique()) == 1 for i in range(4))
    torch.testing.assert_close(kmeans.centres[found[:4]], centres, atol=0.05, rtol=0)


def test_hubert_reads_clusters_where_hidden_and_switches_once() -> None:
    method = HuBERT(tiny_wave(), VIEWS, clusters=(5, 7), dim=8, layer=1, switch=0.5, fit=1.0)
    wave = draw(3, 6400).detach().float()
    for step in range(4):
        method.before_step(step, 4)
        (guess,) = method.encode([View(wave, keys(3).fold(step))])
        assert guess.logits.shape[-1] == (5, 7)[step // 2]
        loss = method.loss([guess]).total
        guess.clusters[~guess.hidden] = 0
        assert torch.equal(method.loss([guess]).total, loss)
        method.after_step(Step(step, 4, torch.tensor(True)))
        assert bool(method.kmeans[0].won.any())
        assert bool(method.kmeans[1].won.any()) == (step >= 2)
    student = next(method.encoder.parameters())
    assert torch.equal(next(method.earlier.encoder.parameters()), student)


def test_random_projection_codes_are_fixed_and_many() -> None:
    values = draw(4, 200, 16).detach().float()
    first, again = (RandomProjectionQuantiser(16, codes=64)(values) for _ in range(2))
    assert torch.equal(first, again)
    assert len(first.unique()) > 40
    assert torch.equal(first, RandomProjectionQuantiser(16, codes=64)(3 * values + 1))
    other = RandomProjectionQuantiser(16, codes=64, seed=1)(values)
    assert not torch.equal(first, other)


def test_frame_byol_counts_hidden_frames_alone_and_is_a_distance() -> None:
    p, t = draw(2, 5, 3), draw(2, 5, 3, seed=1).detach()
    hidden = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1]]).bool()
    loss = frame_byol(p, t, hidden)
    distance = (F.normalize(p, dim=-1) - F.normalize(t, dim=-1)).square().sum(-1)
    torch.testing.assert_close(loss, distance[hidden].mean())
    t[~hidden] = 100
    assert torch.equal(frame_byol(p, t, hidden), loss)


def test_atst_teacher_follows_and_gets_no_gradient() -> None:
    encoder = spec_vit(SPEC, patch=None, frame=2, **TINY)
    method = ATSTFrame(encoder, VIEWS, hidden=8, dim=4, momentum=0.9)
    views = [View(spectrograms(), keys(2)), View(spectrograms(), keys(2))]
    method(views).total.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    old = next(method.teacher.encoder.parameters()).clone()
    with torch.no_grad():
        next(method.encoder.parameters()).add_(1)
    new = next(method.encoder.parameters())
    method.after_step(Step(0, 10, torch.tensor(True)))
    torch.testing.assert_close(
        next(method.teacher.encoder.parameters()), 0.9 * old + 0.1 * new.detach()
    )
