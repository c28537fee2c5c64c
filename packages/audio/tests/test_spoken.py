"""Spoken samples, by a stand-in for the synthesiser and by the real one where there is one."""

import csv
import hashlib
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from ssl_audio.spoken import PROGRAM, WORDS, Talker, spoken, write_spoken
from ssl_core.cli import command_line
from ssl_core.data import open_source
from ssl_core.errors import UserError

STAND_IN = """#!/bin/sh
while [ $# -gt 1 ]; do
  if [ "$1" = "-w" ]; then out="$2"; fi
  shift
done
/bin/cp "{folder}/$1.wav" "$out"
"""


@pytest.fixture
def synthesiser(tmp_path, monkeypatch) -> None:
    """A program that copies a tone for each word."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for number, word in enumerate(WORDS):
        time = np.arange(6000 + 100 * number) / 22_050
        soundfile.write(folder / f"{word}.wav", np.sin(900 * (number + 2) * time) / 2, 22_050)
    program = folder / PROGRAM
    program.write_text(STAND_IN.format(folder=folder))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*.*")
    }


@pytest.mark.usefixtures("synthesiser")
def test_words_and_speakers_are_labelled_and_repeat(tmp_path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_spoken(tmp_path / name, count=25, seed=seed)
    a, b, c = (hashes(tmp_path / name) for name in "abc")
    assert a == b != c
    with (tmp_path / "a" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).parts[:2] for row in rows] == [
        (row["split"], row["label"]) for row in rows
    ]
    assert {row["label"] for row in rows} == set(WORDS)
    sides = [{r["speaker"] for r in rows if r["split"] == side} for side in ("train", "test")]
    assert sides[0]
    assert not sides[0] & sides[1]
    source = open_source(tmp_path / "a" / "labels.csv", suffixes=[".wav", ".flac"])
    assert source.classes is not None
    assert len(source) == 25
    assert source[0].meta["speaker"] == rows[0]["speaker"]
    with pytest.raises(UserError, match="at least 20 recordings"):
        write_spoken(tmp_path / "d", count=19)


@pytest.mark.usefixtures("synthesiser")
def test_a_failing_synthesiser_is_named() -> None:
    with pytest.raises(UserError, match=f"{PROGRAM} failed on 'nothing': .*nothing.wav"):
        spoken("nothing", Talker.of("train", 0, seed=0))


def test_without_the_synthesiser_the_command_says_what_to_install(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    commands = command_line("ssl_audio.domain:AUDIO", name="ssl-audio").commands
    found = CliRunner().invoke(commands, ["samples", str(tmp_path / "x"), "--kind", "spoken"])
    assert found.exit_code == 2
    assert "apt-get install espeak-ng" in found.output
    found = CliRunner().invoke(commands, ["samples", str(tmp_path / "y"), "--kind", "spokn"])
    assert found.exit_code == 2
    assert "spoken" in found.output


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="needs espeak-ng")
def test_espeak_says_words() -> None:
    talkers = [Talker("a", "en-us+f2", 50, 150), Talker("b", "en-gb+m3", 30, 150)]
    waves = [spoken(word, talker) for talker in talkers for word in ("seven", "up")]
    assert all(0.1 < len(wave) / 16_000 < 2 and np.abs(wave).max() > 0.05 for wave in waves)
    assert len(waves[0]) > len(waves[1])
    again = spoken("seven", talkers[0])
    np.testing.assert_array_equal(again, waves[0])
