"""Views of audio: released values of BYOL-A, identities, and what each operation promises."""

import pytest
import torch

from reference import draw, golden, keys
from ssl_audio.decode import Wave
from ssl_audio.views.policies import frames, standardised
from ssl_audio.views.spectrogram import (
    Mixup,
    ResizeCrop,
    Roll,
    SpecMask,
    Tilt,
    log_mixup_exp,
)
from ssl_audio.views.waveform import Gain, Noise, Reverb, Speed
from ssl_audio.waves import Segment, Waves
from ssl_core.batch import Batch


def waves(*lengths: int, rate: int = 16_000) -> Waves:
    return Waves.of([Wave(torch.arange(1, n + 1).to(torch.int16), rate) for n in lengths])


@pytest.mark.parametrize(("name", "own"), [("060", 0.6), ("083", 0.83)])
def test_log_mixup_exp_of_released_code(name: str, own: float) -> None:
    case = golden("byol_a/mixup_norm")
    got = log_mixup_exp(case["xa"], case["xb"], 1 - own)
    torch.testing.assert_close(got, case[f"mixed_a{name}"], rtol=1e-10, atol=1e-10)
    low, high = torch.minimum(case["xa"], case["xb"]), torch.maximum(case["xa"], case["xb"])
    assert ((got >= low) & (got <= high)).all()


def test_log_mixup_exp_gradients_of_released_code() -> None:
    case = golden("byol_a/mixup_norm")
    xa, xb = case["xa"].requires_grad_(), case["xb"].requires_grad_()
    loss = log_mixup_exp(xa, xb, 0.17).square().sum()
    for got, want in zip(
        torch.autograd.grad(loss, [xa, xb]),
        [case["grad_sumsq_xa"], case["grad_sumsq_xb"]],
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


def test_resize_crop_of_released_code() -> None:
    case = golden("byol_a/resize_crop")
    x = case["x"].expand(4, -1, -1)
    got = ResizeCrop().apply(x, case["top_left_h_w"])
    torch.testing.assert_close(got, case["out"][:, 0], rtol=0, atol=1e-5)


def test_resize_crop_keeps_constants_and_whole_boxes() -> None:
    x = draw(2, 16, 24).detach().float()
    whole = torch.tensor([[0, 6, 16, 24]]).expand(2, -1)
    torch.testing.assert_close(ResizeCrop().apply(x, whole), x)
    inside = torch.tensor([[3, 8, 9, 13]]).expand(2, -1)
    out = ResizeCrop().apply(torch.full_like(x, 2.5), inside)
    torch.testing.assert_close(out, torch.full_like(x, 2.5))


def test_frequency_only_keeps_an_event_at_its_frame() -> None:
    x = torch.zeros(30, 16, 24)
    x[:, :, 10] = 1
    op = ResizeCrop(frequency_only=True)
    out = op.apply(x, op.sample(keys(30), 16, 24))
    assert (out[:, :, 10] > 0.5).all()
    assert not out[:, :, :10].any()
    both = ResizeCrop().apply(x, ResizeCrop().sample(keys(30), 16, 24))
    assert (both.amax(1).argmax(1) != 10).any()


def test_mixup_with_no_share_is_the_identity() -> None:
    x = draw(5, 16, 24).detach().float()
    op = Mixup(0.4, p=0.0)
    assert torch.equal(op.apply(x, op.sample(keys(5), 16, 24)), x)
    mixed = Mixup(0.4)
    out = mixed.apply(x, mixed.sample(keys(5), 16, 24))
    assert not torch.equal(out, x)
    assert torch.isfinite(out).all()


def test_masks_rolls_and_tilts() -> None:
    x = draw(40, 20, 30).detach().float() + 9
    op = SpecMask(bands=2, band=0.25, spans=1, span=0.1)
    hidden = op.sample(keys(40), 20, 30)
    out = op.apply(x, hidden)
    assert torch.equal(out == 0, hidden[0][:, :, None] | hidden[1][:, None])
    assert hidden[0].sum(1).max() <= 10
    assert hidden[1].sum(1).max() <= 3
    shift = Roll(bands=2).sample(keys(40), 30)
    rolled = Roll(bands=2).apply(x, shift)
    for i in (0, 7):
        assert torch.equal(rolled[i], x[i].roll(shift[i].tolist(), (0, 1)))
    colour = Tilt(2.0).sample(keys(40), 20)
    assert colour.abs().max() < 2 * (1 + 1 / 2 + 1 / 3)
    torch.testing.assert_close(Tilt(2.0).apply(x, colour) - x, colour[..., None].expand_as(x))


def test_segments_lie_inside_and_short_recordings_are_padded() -> None:
    batch = waves(400, 100)
    place = torch.tensor([1.0, 0.5])
    cut = Segment(200).apply(batch, place, 16_000) * 32768
    assert torch.equal(cut[0], torch.arange(201, 401).float())
    assert torch.equal(cut[1, 50:150], torch.arange(1, 101).float())
    assert not cut[1, :50].any()
    assert not cut[1, 150:].any()


def test_rates_may_differ_within_a_batch() -> None:
    time = torch.arange(48_000) / 48_000
    tone = (torch.sin(2 * torch.pi * 300 * time) * 20_000).round().to(torch.int16)
    batch = Waves.of([Wave(tone, 48_000), Wave(tone[::3].contiguous(), 16_000)])
    cut = Segment(8000).apply(batch, torch.tensor([0.5, 0.5]), 16_000)
    torch.testing.assert_close(cut[0, 100:-100], cut[1, 100:-100], atol=3e-3, rtol=0)


def test_noise_gain_and_reverb_are_as_loud_as_they_say() -> None:
    wave = torch.sin(torch.arange(16_000) / 9.0).repeat(60, 1) * 0.3
    noise = Noise(10.0, 10.0, p=1.0)
    added = noise.apply(wave, noise.sample(keys(60), 16_000)) - wave
    ratio = 10 * (wave.square().mean() / added.square().mean()).log10()
    assert abs(float(ratio) - 10) < 0.1
    assert abs(float(added.mean())) < 1e-3
    factor = Gain(6.0).sample(keys(60))
    assert 0.5 < factor.min() < 0.6 < 1.6 < factor.max() < 2
    reverb = Reverb(16_000, p=0.5)
    response = reverb.sample(keys(60))
    assert (response[:, 0] == 1).all()
    assert 15 < (response[:, 1:] == 0).all(1).sum() < 45
    assert response[:, 1:].square().sum(1).max() <= 0.7 + 1e-4
    dry = (response[:, 1:] == 0).all(1)
    out = reverb.apply(wave, response)
    assert torch.equal(out[dry], wave[dry])
    click = torch.zeros(60, 9000)
    click[:, 0] = 1
    torch.testing.assert_close(
        reverb.apply(click, response)[:, : response.shape[1]], response, atol=1e-5, rtol=0
    )


def test_speed_is_even_on_a_logarithmic_scale_and_optional() -> None:
    factor = Speed(1.2, p=1.0).sample(keys(500))
    assert 1 / 1.2 <= factor.min() < factor.max() <= 1.2
    assert abs(float(factor.log().mean())) < 0.02
    assert (Speed(1.2).sample(keys(50)) == 1).all()


def test_frame_views_share_a_segment_and_the_second_is_plain() -> None:
    spec = {"rate": 16_000, "features": "mel64", "mels": 64, "frames": 32, "mean": 0.0, "std": 1.0}
    noise = (draw(2, 20_000).detach() * 3000).to(torch.int16)
    ids = torch.arange(2)
    batch = Batch(Waves.of([Wave(row, 16_000) for row in noise]), ids, ids)
    spec = {**spec, "seconds": 0.32}
    student, teacher = frames(spec, mixup=0.0, scale=(1.0, 1.0))(batch, keys(2))
    assert (student.role, teacher.role) == ("student", "teacher")
    torch.testing.assert_close(student.data, teacher.data, atol=1e-5, rtol=1e-5)
    student, plain = frames(spec, mixup=0.0, scale=None)(batch, keys(2))
    torch.testing.assert_close(student.data, plain.data, atol=0, rtol=0)
    tilted, plain = frames(spec, mixup=0.0, scale=None, tilt=3.0)(batch, keys(2))
    torch.testing.assert_close(plain.data, teacher.data, atol=0, rtol=0)
    colour = (tilted.data - plain.data)[:, 0]  # one for all frames, another a band
    torch.testing.assert_close(colour, colour[..., :1].expand_as(colour), atol=1e-4, rtol=0)
    assert float(colour[..., 0].std(-1).min()) > 0
    noisy, plain = frames(spec, mixup=0.0, scale=None, noise=1.0)(batch, keys(2))
    torch.testing.assert_close(plain.data, teacher.data, atol=0, rtol=0)
    assert not torch.equal(noisy.data, plain.data)


def test_waves_have_unit_variance_and_silence_stays() -> None:
    out = standardised(torch.stack([3 + 5 * draw(1000).detach().float(), torch.zeros(1000)]))
    torch.testing.assert_close(out[0].var(unbiased=False), torch.tensor(1.0))
    assert not out[1].any()
