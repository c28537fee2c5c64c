"""Features and views of audio against torchaudio, interleaved in one run.

    uv run python tools/bench/audio.py [--rounds 7] [--seconds 10]

One thread. Features are timed clip by clip on both sides, as a data loader would call them, on the
same waves; results are compared first (in bins with almost no energy, float32 transforms differ).
Views are the SimCLR policy (two segments, noise, colour, gain) against the same steps with
torchaudio's transforms, one clip at a time. Prints milliseconds of processor time a clip (median
over rounds) and the ratio.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchaudio
from torch import Tensor

from ssl_audio.decode import Wave
from ssl_audio.features import PRESETS, FeatureConfig, log_mel
from ssl_audio.views.policies import simclr
from ssl_audio.waves import Waves
from ssl_core.batch import Batch
from ssl_core.rng import Rng

CLIPS = 16
RATE = 16_000


def torchaudio_mel(config: FeatureConfig) -> Callable[[Tensor], Tensor]:
    """torchaudio's MelSpectrogram of one clip, then the logarithm."""
    transform = torchaudio.transforms.MelSpectrogram(
        RATE,
        n_fft=config.n_fft,
        win_length=config.window,
        hop_length=config.hop,
        n_mels=config.mels,
        f_min=config.low,
        f_max=config.high,
    )
    return lambda wave: (transform(wave) + config.floor).log()


def torchaudio_fbank(wave: Tensor) -> Tensor:
    """Kaldi features of one clip, as AST calls them."""
    frames: Tensor = torchaudio.compliance.kaldi.fbank(
        wave[None],
        htk_compat=True,
        sample_frequency=RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    return frames.T


def torchaudio_views(config: FeatureConfig, count: int) -> Callable[[Tensor], Tensor]:
    """Two random segments of one clip with noise, gain and colour, through torchaudio."""
    mel = torchaudio_mel(config)
    add = torchaudio.transforms.AddNoise()

    def views(wave: Tensor) -> Tensor:
        out = []
        for _ in range(2):
            start = int(torch.randint(len(wave) - count + 1, ()))
            part = wave[start : start + count].float() / 32768
            ratio = torch.empty(1).uniform_(5, 30)
            part = add(part[None], torch.randn(1, count), ratio)[0]
            part = torchaudio.functional.gain(part, float(torch.empty(()).uniform_(-6, 6)))
            place = torch.linspace(0, torch.pi, config.mels)
            colour = sum(
                float(torch.empty(()).uniform_(-1, 1)) / i * (i * place).cos() for i in (1, 2, 3)
            )
            out.append((mel(part) + torch.as_tensor(colour)[:, None]) / 3)
        return torch.stack(out)

    return views


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of processor time a clip."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000 / CLIPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    clips = (torch.randn(CLIPS, round(given.seconds * RATE), generator=generator) * 3000).short()
    waves = clips.float() / 32768
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    peers = {"fbank128": torchaudio_fbank} | {
        name: torchaudio_mel(PRESETS[name]) for name in ("mel64", "mel80")
    }
    for name, peer in peers.items():
        config = PRESETS[name]
        error = (log_mel(waves, config)[0] - peer(waves[0])).abs().max()
        print(f"{name}: largest difference {float(error):.1e}")
        pairs[f"{name}, {given.seconds:g} s"] = (
            lambda config=config: [log_mel(wave[None], config) for wave in waves],
            lambda peer=peer: [peer(wave) for wave in waves],
        )
    spec = {"rate": RATE, "features": "mel64", "mels": 64, "frames": 96, "seconds": 0.96}
    policy = simclr({**spec, "mean": 0.0, "std": 3.0}, reverb=0.0, noise=1.0)
    ids = torch.arange(CLIPS)
    batch = Batch(Waves.of([Wave(clip, RATE) for clip in clips]), ids, ids)
    other = torchaudio_views(PRESETS["mel64"], PRESETS["mel64"].samples(96))
    pairs["two SimCLR views, 0.96 s"] = (
        lambda: policy(batch, Rng.at(0, 0, ids)),
        lambda: [other(clip) for clip in clips],
    )
    print(f"\n{'':28}{'ours ms':>9}{'torchaudio ms':>15}{'ratio':>8}")
    for name, (ours, theirs) in pairs.items():
        ours(), theirs()
        times = [(timed(ours), timed(theirs)) for _ in range(given.rounds)]
        a, b = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(y / x for x, y in times)
        print(f"{name:28}{a:9.2f}{b:15.2f}{ratio:7.2f}x")


if __name__ == "__main__":
    main()
