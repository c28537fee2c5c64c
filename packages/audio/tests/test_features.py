"""Log-mel features: torchaudio's numbers, released values, one recording at a time or together."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchaudio

from reference import golden
from ssl_audio import features
from ssl_audio.cepstra import cepstra, mfcc, slopes
from ssl_audio.features import PRESETS, FeatureConfig, band_centres, frame_times, log_mel
from ssl_audio.resampling import resample, stretch


def noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator) * 0.1


@pytest.mark.parametrize("name", ["mel64", "mel80"])
def test_stft_features_are_torchaudios(name: str) -> None:
    config = PRESETS[name]
    transform = torchaudio.transforms.MelSpectrogram(
        config.rate,
        n_fft=config.n_fft,
        win_length=config.window,
        hop_length=config.hop,
        n_mels=config.mels,
        f_min=config.low,
        f_max=config.high,
    )
    wave = noise(3, 8000)
    torch.testing.assert_close(
        log_mel(wave, config), (transform(wave) + config.floor).log(), atol=1e-4, rtol=0
    )


def test_kaldi_features_are_torchaudios() -> None:
    wave = noise(2, 8000) + 0.01
    got = log_mel(wave, PRESETS["fbank128"])
    for row, own in zip(wave, got, strict=True):
        want = torchaudio.compliance.kaldi.fbank(
            row[None],
            htk_compat=True,
            sample_frequency=16000,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_shift=10,
        )
        # A band that holds a billionth of its frame's power is rounded with the frame: how far it
        # is off depends on the processor's Fourier transform.
        power = want.double().exp()
        rounding = torch.finfo(torch.float32).eps * (power * power.sum(1, keepdim=True)).sqrt()
        assert ((own.T.double().exp() - power).abs() <= 5e-5 * power + rounding).all()


def test_cepstra_and_slopes_are_torchaudios() -> None:
    wave = noise(2, 8000) + 0.01
    for row, own in zip(wave, mfcc(wave), strict=True):
        want = torchaudio.compliance.kaldi.mfcc(
            row[None], sample_frequency=16000, window_type="hanning", dither=0.0
        )
        torch.testing.assert_close(own, want, atol=1e-3, rtol=1e-4)
        rising = torchaudio.functional.compute_deltas(want.T).T
        torch.testing.assert_close(slopes(want[None])[0], rising, atol=1e-4, rtol=1e-4)
    made = cepstra(wave, 25)
    assert made.shape == (2, 25, 39)
    torch.testing.assert_close(made[:, :24, :13], mfcc(wave, hop=320)[:, :24])


def test_fbank_of_released_code() -> None:
    case = golden("fbank/ast_chirp")
    wave = case["waveform"] - case["waveform"].mean()
    got = log_mel(wave[None], PRESETS["fbank128"])[0].T
    error = (got - case["fbank_padded"][: len(got)]).abs()
    assert len(got) == 43
    assert error.median() < 1e-5
    assert error.max() < 1e-2


@pytest.mark.parametrize("name", PRESETS)
def test_together_as_one_by_one(name: str) -> None:
    """What runs on an accelerator or under autograd, compared on the CPU."""
    config = PRESETS[name]
    wave = noise(3, config.samples(20))
    got = log_mel(wave, config)
    assert got.shape == (3, config.mels, 20)
    assert torch.equal(log_mel(wave[1:2], config)[0], got[1])
    traced = log_mel(wave.requires_grad_(), config)
    torch.testing.assert_close(traced, got, atol=1e-4, rtol=0)
    traced.mean().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()


@pytest.mark.parametrize("name", PRESETS)
def test_long_recordings_go_through_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PRESETS[name]
    wave = noise(2, config.samples(45))
    whole = log_mel(wave, config)
    monkeypatch.setattr(features, "_PIECE", 16)
    monkeypatch.setattr(features, "_kept", features._Kept())
    torch.testing.assert_close(log_mel(wave, config), whole, atol=1e-5, rtol=0)


def test_kept_memory_does_not_carry_over() -> None:
    """After inference mode, after a longer recording, after other features, in another thread."""
    config = PRESETS["mel80"]
    wave = noise(1, config.samples(30))
    features._kept.by_config.clear()
    with torch.inference_mode():
        first = log_mel(wave, config).clone()
    for other in PRESETS.values():
        log_mel(noise(1, other.samples(60)), other)
    assert torch.equal(log_mel(wave, config), first)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: log_mel(wave, config), range(8)))
    assert all(torch.equal(one, first) for one in both)


@pytest.mark.parametrize("name", PRESETS)
def test_a_tone_lies_in_its_band_at_its_time(name: str) -> None:
    config = PRESETS[name]
    time = torch.arange(16000) / 16000
    tone = torch.sin(2 * torch.pi * 1000 * time) * (time > 0.5)
    mel = log_mel(tone[None], config)[0]
    loudest = band_centres(config)[int(mel[:, -10].argmax())]
    assert abs(loudest - 1000) < 40
    on = mel.amax(0) > -3
    assert abs(float(frame_times(config, mel.shape[1])[on][0]) - 0.5) < 0.04


def test_another_rate_keeps_seconds_and_band() -> None:
    config = PRESETS["fbank128"].at(8000)
    assert (config.window, config.hop, config.n_fft, config.high) == (200, 80, 256, 4000)
    assert isinstance(config, FeatureConfig)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_is_torchaudios(rate: int) -> None:
    wave = noise(2, 2000)
    want = torchaudio.functional.resample(wave, rate, 16000)
    torch.testing.assert_close(resample(wave, rate, 16000), want, atol=1e-5, rtol=0)


def test_an_odd_rate_needs_no_giant_filter() -> None:
    assert resample(noise(1, 44101), 44101, 16000).shape[1] in (16000, 16001)


def test_stretch_moves_a_tone_and_leaves_factor_one_alone() -> None:
    time = torch.arange(16000) / 16000
    tone = torch.sin(2 * torch.pi * 440 * time).repeat(2, 1)
    out = stretch(tone, torch.tensor([1.0, 1.25]))
    torch.testing.assert_close(out[0, 100:-100], tone[0, 100:-100], atol=2e-2, rtol=0)
    peak = torch.fft.rfft(out[1, 4000:12000]).abs().argmax() * 2
    assert abs(int(peak) - 550) <= 2
