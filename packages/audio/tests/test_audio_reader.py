"""Reading audio: formats, parts of long files, every kind of damage, facts measured."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ssl_audio.decode import Window, decode_audio
from ssl_audio.domain import AUDIO
from ssl_audio.options import ReaderOptions
from ssl_audio.reader import AudioReader
from ssl_core.data import decode_all, split_holdout
from ssl_core.errors import CorruptSample, UserError
from ssl_core.recipe import Data


def tone(seconds: float = 1.0, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    return np.stack([wave * (i + 1) / channels for i in range(channels)], axis=1)


def encoded(wave: np.ndarray, rate: int = 16_000, format: str = "WAV", **more: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, wave, rate, format=format, **more)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 2e-4),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_24", 2e-4),
        ("WAV", "FLOAT", 2e-4),
        ("FLAC", "PCM_16", 2e-4),
        ("AIFF", "PCM_16", 2e-4),
        ("OGG", "VORBIS", 5e-2),
        ("OGG", "OPUS", 5e-2),
        ("MP3", "MPEG_LAYER_III", 5e-2),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_formats_channels_and_rates(format, subtype, tolerance, channels) -> None:
    rate = 48_000 if subtype == "OPUS" else 22_050
    data = encoded(tone(0.5, rate, channels), rate, format, subtype=subtype)
    wave = decode_audio(data)
    assert wave.rate == rate
    assert wave.data.dtype == torch.int16
    got = wave.data[1000:6000].float() / 32768
    want = torch.from_numpy(tone(0.5, rate, channels).mean(1)[1000:6000]).float()
    assert (got - want).abs().max() < tolerance


def test_arrays_and_mappings(tmp_path: Path) -> None:
    wave = tone(0.1)[:, 0]
    want = decode_audio(encoded(wave)).data
    for payload in (
        wave,
        wave[None],
        torch.from_numpy(wave),
        {"array": wave, "sampling_rate": 16_000},
    ):
        got = decode_audio(payload, rate=16_000).data
        assert (got.int() - want.int()).abs().max() <= 1
    (tmp_path / "a.wav").write_bytes(encoded(wave))
    for payload in ({"path": str(tmp_path / "a.wav")}, {"bytes": encoded(wave), "path": "x"}):
        assert torch.equal(decode_audio(payload).data, want)
    with pytest.raises(CorruptSample, match="without a rate"):
        decode_audio(wave)


def test_the_middle_of_a_long_file_costs_a_seek(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hour.wav"
    count = 3600 * 16_000
    with path.open("wb") as file:  # an hour of silence with a mark in the middle, sparse on disk
        file.write(encoded(np.zeros(0))[:40] + struct.pack("<I", 2 * count))
        file.seek(44 + count)
        file.write(struct.pack("<h", 1234))
        file.truncate(44 + 2 * count)
    with path.open("r+b") as file:
        file.seek(4)
        file.write(struct.pack("<I", 36 + 2 * count))
    asked: list[int] = []
    read = soundfile.SoundFile.read

    def spy(self: soundfile.SoundFile, frames: int = -1, **options: object) -> np.ndarray:
        asked.append(frames)
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", spy)
    wave = decode_audio(path, max_seconds=2.0)
    assert asked == [32_000]
    assert len(wave.data) == 32_000
    assert int(wave.data[16_000]) == 1234
    part = decode_audio(Window(path, count // 2 - 1000, count // 2 + 1000))
    assert int(part.data[1000]) == 1234


WAV = encoded(tone())
BROKEN = {
    "empty": (b"", "empty"),
    "words": (b"not a sound at all" * 9, "not an audio file"),
    "cut": (WAV[:9000], "truncated: 8956 of 32000 bytes"),
    "header": (WAV[:30], "not an audio file"),
    "cut flac": (encoded(tone(), format="FLAC")[:2000], "truncated|damaged|not an audio"),
    "no samples": (encoded(tone()[:0]), "0 samples"),
    "one sample": (encoded(tone()[:1]), "1 samples at 16000 Hz are shorter"),
    "nan": (encoded(np.full((8000, 1), np.nan), subtype="FLOAT"), "not all samples are finite"),
    "infinite": (encoded(np.full((8000, 1), np.inf), subtype="FLOAT"), "finite"),
    "rate": (WAV[:24] + struct.pack("<I", 4_000_000) + WAV[28:], "4000000 samples a second"),
    "channels": (WAV[:22] + struct.pack("<H", 60_000) + WAV[24:], "channels|not an audio"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_damage_is_named(kind: str, tmp_path: Path) -> None:
    data, words = BROKEN[kind]
    with pytest.raises(CorruptSample, match=words):
        decode_audio(data)
    (tmp_path / "x.wav").write_bytes(data)
    with pytest.raises(CorruptSample, match=words):
        decode_audio(tmp_path / "x.wav")


def test_a_pipe_wrote_the_size_of_the_data_unknown() -> None:
    piped = WAV[:40] + struct.pack("<I", 0xFFFF_FFFF) + WAV[44:]
    assert len(decode_audio(piped).data) == 16_000


def test_other_refusals(tmp_path: Path) -> None:
    for payload, words in (
        (tmp_path / "none.wav", "cannot be read"),
        (12, "neither a file"),
        (np.zeros((2, 3, 4)), "shape"),
        (np.array(["a"] * 900), "holds no samples"),
    ):
        with pytest.raises(CorruptSample, match=words):
            decode_audio(payload, rate=16_000)
    with pytest.raises(CorruptSample, match="exceed the cap"):
        decode_audio(WAV, max_bytes=100)


def test_a_wrong_ending_and_too_loud_floats_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "really_flac.wav").write_bytes(encoded(tone(), format="FLAC"))
    assert len(decode_audio(tmp_path / "really_flac.wav").data) == 16_000
    loud = decode_audio(encoded(8 * tone(), subtype="FLOAT")).data
    assert loud.max() == 32767
    assert (loud == 32767).float().mean() < 0.1  # scaled, not clipped


def test_a_mixed_folder_counts_what_it_cannot_read(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"good{i}.wav").write_bytes(encoded(tone(1 + i / 4), 16_000))
    for name in ("empty", "words", "nan"):
        (tmp_path / f"{name}.wav").write_bytes(BROKEN[name][0])
    source = AUDIO.open(Data(path=str(tmp_path)))
    reader = AUDIO.fit_reader(source, Data(path=str(tmp_path)))
    assert reader.spec["frames"] == 128
    failures = {}
    batches = list(
        decode_all(
            source,
            reader,
            range(len(source)),
            on_corrupt=lambda failure: failures.update({failure.key: failure.reason}),
        )
    )
    assert sum(map(len, batches)) == 4
    assert set(failures) == {"empty.wav", "words.wav", "nan.wav"}
    raw = reader.raw(batches[0].data)
    assert raw.shape == (4, 128)
    assert torch.isfinite(raw).all()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.wav").write_bytes(b"12345")
    bad = Data(path=str(tmp_path / "bad"))
    with pytest.raises(UserError, match="none of 1 records is a readable recording"):
        AUDIO.fit_reader(AUDIO.open(bad), bad)


def test_long_files_split_into_parts_that_stay_together(tmp_path: Path) -> None:
    for name, seconds in (("a", 5.0), ("b", 4.1), ("c", 0.8)):
        (tmp_path / f"{name}.wav").write_bytes(encoded(tone(seconds)))
    data = Data(path=str(tmp_path), options={"split": True, "max_seconds": 1.0}, holdout=0.4)
    source = AUDIO.open(data)
    assert len(source) == 5 + 5 + 1
    assert source[1].key == "a.wav@16000"
    reader = AUDIO.fit_reader(source, data)
    assert [len(reader.decode(source[i]).data) for i in (0, 5, 10)] == [16_000, 13_120, 12_800]
    train, held = split_holdout(source, 0.4)
    sides = [{side[i].key[0] for i in range(len(side))} for side in (train, held)]
    assert not sides[0] & sides[1]
    whole = AUDIO.open(Data(path=str(tmp_path), options={"max_seconds": 1.0}))
    assert len(whole) == 3
    assert whole.fingerprint() != source.fingerprint()


def test_measured_facts_and_saving(tmp_path: Path) -> None:
    AUDIO.samples(tmp_path / "s", count=20, seed=1)
    data = Data(path=str(tmp_path / "s"))
    train, held = split_holdout(AUDIO.open(data), 0.2)
    assert (len(train), len(held)) == (16, 4)
    reader = AUDIO.fit_reader(train, data)
    reader.save(tmp_path)
    again = AUDIO.load_reader(tmp_path)
    assert again.spec == reader.spec
    batch = next(iter(decode_all(train, again, range(16))))
    plain = AUDIO.create_views("none", again.spec, {}).plain(batch)
    assert abs(float(plain.mean())) < 0.05
    assert abs(float(plain.std()) - 1) < 0.05
    options = {"features": "fbank128", "normalize": "published"}
    spec = AudioReader.fit(train, ReaderOptions.of(options)).spec
    assert (spec["mean"], spec["std"], spec["mels"]) == (-4.26774, 9.13799, 128)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"features": "mel46"}, "did you mean 'mel64'"),
        ({"rate": "16k"}, "data.options.rate: '16k'"),
        ({"normalise": "x"}, "did you mean 'normalize'"),
        ({"normalize": "imagenet"}, "choose one of measured"),
        ({"max_seconds": 0}, "max_seconds: 0"),
        ({"split": "yes"}, "split must be true or false, got 'yes'"),
    ],
)
def test_wrong_options_are_user_errors(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ReaderOptions.of(options)
