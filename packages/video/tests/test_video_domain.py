"""From files to batches and views: reader, sources, samples, recipes, bad input."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_video
from ssl_core.batch import Batch, Record
from ssl_core.data import Loader, Stream, decode_all, split_holdout
from ssl_core.errors import CorruptSample, UserError
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_core.runs.config import build, recipe_names, shipped
from ssl_core.runs.packing import pack
from ssl_core.runs.parts import fitted_reader, open_data
from ssl_video import changes, samples
from ssl_video.domain import VIDEO
from ssl_video.files.open import open_video
from ssl_video.reader import ReaderOptions, VideoReader
from video_files import moving, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("moving") / "samples"
    VIDEO.samples(path, count=40, seed=0)
    return path


def test_from_folder_to_views(folder, tmp_path) -> None:
    data = Data(path=str(folder))
    train, held = split_holdout(VIDEO.open(data), 0.2)
    assert (len(train), len(held)) == (32, 8)
    reader = VIDEO.fit_reader(train, data)
    assert not reader.draws
    reader.save(tmp_path)
    again = VIDEO.load_reader(tmp_path)
    assert again.spec == reader.spec
    batches = list(decode_all(train, again, range(32), batch_size=20))
    assert [tuple(b.data.shape) for b in batches] == [(20, 32, 40, 40, 3), (12, 32, 40, 40, 3)]
    assert batches[0].data.dtype == torch.uint8
    assert reader.raw(batches[0].data).shape == (20, 8 * 3 * 16 * 16)
    mean = batches[0].data.float().mean((0, 1, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor(reader.spec["mean"]), atol=0.05, rtol=0)


def test_the_samples_labels_are_what_is_seen(folder) -> None:
    tables = {}
    for name in ("objects", "directions", "speeds"):
        with (folder / f"{name}.csv").open() as file:
            tables[name] = {row["path"]: row["label"] for row in csv.DictReader(file)}
        source = VIDEO.open(Data(path=str(folder / f"{name}.csv")))
        assert len(source) == 40
        assert sorted(source.classes) == sorted(set(tables[name].values()))
    assert all(path.split("/")[1] == speed for path, speed in tables["speeds"].items())
    assert set(tables["speeds"].values()) == set(samples.SPEEDS)
    # The object is where motion says it is: the frames, moved back, agree on what is not ground.
    moved, unmoved = [], []
    for path, direction in list(tables["directions"].items())[:12]:
        with open_video(str(folder / path)) as video:
            frames = video.frames(np.arange(samples.FRAMES)).astype(np.float64)
        ink = np.abs(frames - np.median(frames, axis=0)).sum(-1)  # [T, H, W]
        angle = 2 * np.pi * samples.DIRECTIONS.index(direction) / 8
        pixels = samples.SPEEDS[tables["speeds"][path]]
        back = [
            np.roll(image, tuple(np.rint(-n * pixels * np.array([np.sin(angle), np.cos(angle)]))
                                 .astype(int)), (0, 1))
            for n, image in enumerate(ink)
        ]  # fmt: skip
        moved.append(np.mean(back, axis=0).max())
        unmoved.append(np.mean(ink, axis=0).max())
    assert np.mean(moved) > 1.8 * np.mean(unmoved)


def test_writing_samples_refuses_what_it_must_not_touch(folder, tmp_path) -> None:
    with pytest.raises(UserError, match="not empty"):
        samples.write_samples(folder, count=20)
    with pytest.raises(UserError, match="at least 20"):
        samples.write_samples(tmp_path / "few", count=19)


def test_changes_go_one_way(tmp_path) -> None:
    path = tmp_path / "changes"
    changes.write_changes(path, count=60)
    with (path / "changes.csv").open() as file:
        of = {row["path"]: row["label"] for row in csv.DictReader(file)}
    assert set(of.values()) == set(changes.CHANGES)
    more: dict[str, list[bool]] = {change: [] for change in changes.CHANGES}
    for name, change in of.items():
        assert name.split("/")[1] == change
        with open_video(str(path / name)) as video:
            frames = video.frames(np.arange(samples.FRAMES)).astype(np.float64)
        ink = np.abs(frames - np.median(frames, axis=0)).sum((1, 2, 3))  # grows with size and cover
        moved = np.abs(np.diff(frames, axis=0)).sum((1, 2, 3))
        seen = moved if change in ("start", "brake") else ink
        early, late = seen[1:9].mean(), seen[-9:-1].mean()
        more[change].append(bool(late > early))
    for change, reverse in (("grow", "shrink"), ("appear", "fade"), ("start", "brake")):
        assert np.mean(more[change]) > 0.75
        assert np.mean(more[reverse]) < 0.25


def test_another_process_writes_the_same_bytes(folder, tmp_path) -> None:
    command = (
        f"from ssl_video.samples import write_samples as w; w({str(tmp_path / 'a')!r}, count=40)"
    )
    subprocess.run([sys.executable, "-c", command], check=True)
    for file in sorted(folder.rglob("*.mp4")):
        again = tmp_path / "a" / file.relative_to(folder)
        assert again.read_bytes() == file.read_bytes(), file.name


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Three videos of 60 frames, of two sizes."""
    path = tmp_path_factory.mktemp("long")
    for number, side in enumerate((48, 48, 60)):
        write(path / f"{number}.mp4", moving(60, side, 64))
    return path


def test_of_long_videos_a_window_is_drawn_for_every_id(long) -> None:
    source = VIDEO.open(Data(path=str(long)))
    reader = VideoReader.fit(source, ReaderOptions(window=8, stride=2, max_side=32))
    assert reader.draws
    record = source[0]
    whole = VideoReader.fit(source, ReaderOptions(window=60, max_side=32)).decode(record)
    assert torch.equal(reader.decode(record), whole[22:38:2])
    seen = set()
    for key in range(40):
        drawn = reader.draw(record, key)
        start = next(s for s in range(46) if torch.equal(drawn[0], whole[s]))
        assert torch.equal(drawn, whole[start : start + 16 : 2])
        seen.add(start)
    assert len(seen) > 20
    assert reader.decode(source[2]).shape == (8, 32, 34, 3)  # 60 x 64, shorter side to 32
    with Loader(source, reader, Stream(3, 3, seed=1), workers=2) as loader:
        first, second = loader.batches(0, 2)
    assert isinstance(first.data, list)
    assert not torch.equal(first.data[0], second.data[0])
    policy = VIDEO.create_views("clips", reader.spec, {"frames": 4, "size": 16})
    assert policy(first, Rng.at(0, 0, first.ids))[1].data.shape == (3, 3, 4, 16, 16)


def policy_options() -> dict[str, int]:
    return {"frames": 4, "stride": 2, "size": 16}


def test_clips_of_long_videos_lie_anywhere(long) -> None:
    source = VIDEO.open(Data(path=str(long)))
    options = ReaderOptions(window=8, max_side=32, clips=2, test_clips=3)
    reader = VideoReader.fit(source, options)
    record = source[0]
    whole = VideoReader.fit(source, ReaderOptions(window=60, max_side=32)).decode(record)
    spread = reader.decode(record)
    assert torch.equal(spread, torch.cat([whole[:8], whole[26:34], whole[52:]]))
    policy = VIDEO.create_views("clips", reader.spec, policy_options())
    batch = Batch(reader.collate([spread]), torch.arange(1), torch.arange(1))
    three = policy.plains(batch)
    assert len(three) == 3
    assert torch.equal(policy.plain(batch), three[1])
    alone = VIDEO.create_views("clips", {**reader.spec, "test_clips": 1}, policy_options())
    for clip, window in zip(three, spread.split(8), strict=True):
        one = Batch(window[None], batch.ids, batch.index)
        assert torch.equal(clip, alone.plain(one))
    gaps = set()
    for key in range(20):
        drawn = reader.draw(record, key)
        first, second = (
            next(s for s in range(53) if torch.equal(part[0], whole[s])) for part in drawn.split(8)
        )
        gaps.add(abs(first - second))
    assert max(gaps) > 16, "further apart than one window reaches"
    a, b = policy(batch, Rng.at(0, 0, batch.ids))
    assert a.params["frames"].max() < 8 <= b.params["frames"].min()


def test_manifests_cut_segments_out_of_files(long) -> None:
    (long / "cut.csv").write_text("path,start,end\n0.mp4,0.4,0.8\n1.mp4,9,10\n2.mp4,,0.2\n")
    source = VIDEO.open(Data(path=str(long / "cut.csv")))
    reader = VideoReader.fit(source, ReaderOptions(window=10))
    whole = VideoReader.fit(source, ReaderOptions(window=60)).decode(
        Record("0", str(long / "0.mp4"))
    )
    assert torch.equal(reader.decode(source[0]), whole[10:20])
    with pytest.raises(CorruptSample, match="no frame lies between 9 s and 10 s"):
        reader.decode(source[1])
    short = reader.decode(source[2])
    assert torch.equal(short[:5], short[5:]), "five frames, then from the start"


def test_shards_and_packed_clips_give_the_same_windows(folder, tmp_path) -> None:
    """Tar shards hold the files as they are, packed clips the decoded windows, memory-mapped."""
    data = Data(path=str(folder))
    source = open_data(VIDEO, data)
    reader = VIDEO.fit_reader(source, data)
    for decoded in (False, True):
        place = tmp_path / f"decoded {decoded}"
        pack(VIDEO, data, place, decoded=decoded)
        packed = open_data(VIDEO, Data(path=str(place)))
        assert len(packed) == 40
        used = fitted_reader(VIDEO, packed, Data(path=str(place)))
        (batch,) = decode_all(packed, used, range(6), batch_size=6)
        for row in range(6):
            assert torch.equal(batch.data[row], reader.decode(source[row]))
            assert source.classes[source[row].label] == packed.classes[batch.label[row]]
        facts = VIDEO.facts(packed, range(6))
        assert facts["codecs"] == {"packed frames" if decoded else "h264": 6}
        assert ("fps" in facts) is not decoded


def test_folders_of_frames_and_arrays_are_sources(tmp_path) -> None:
    for kind in ("train/cat/a", "train/cat/b", "test/dog/c"):
        (tmp_path / "frames" / kind).mkdir(parents=True)
        for number, image in enumerate(moving(11)):
            Image.fromarray(image).save(tmp_path / "frames" / kind / f"{number}.png")
    source = VIDEO.open(Data(path=str(tmp_path / "frames")))
    assert [source[i].key for i in range(3)] == ["test/dog/c", "train/cat/a", "train/cat/b"]
    assert list(source.classes) == ["cat", "dog"]
    reader = VIDEO.fit_reader(source, Data())
    assert torch.equal(reader.decode(source[1]), torch.from_numpy(moving(11)))
    np.save(tmp_path / "clips.npy", np.stack([moving(5), moving(5)[::-1]]))
    arrays = VIDEO.open(Data(path=str(tmp_path / "clips.npy")))
    assert len(arrays) == 2
    assert torch.equal(reader.decode(arrays[0])[:5], torch.from_numpy(moving(5)))
    one = VIDEO.open(Data(path=str(tmp_path / "frames/train/cat/a"), format="frames"))
    assert [record.key for record in one] == ["a"]


def test_damaged_files_are_passed_over_and_named(tmp_path) -> None:
    whole = write(tmp_path / "good.mp4", moving(20, 96, 128)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.avi").write_text("no video " * 100)
    source = VIDEO.open(Data(path=str(tmp_path)))
    reader = VIDEO.fit_reader(source, Data())
    failures = {}
    batches = list(
        decode_all(source, reader, on_corrupt=lambda f: failures.update({f.key: f.reason}))
    )
    assert [key for batch in batches for key in batch.keys] == ["good.mp4"]
    assert set(failures) == {"cut.mp4", "empty.mp4", "text.avi"}
    assert failures["empty.mp4"] == "is an empty file"
    said = "is cut off, damaged or no video (Invalid data found when processing input)"
    assert failures["cut.mp4"] == failures["text.avi"] == said
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(UserError, match="none of 1 records is a readable video"):
        VIDEO.fit_reader(VIDEO.open(Data(path=str(bad))), Data())
    (bad / "a.mp4").rename(bad / "a.doc")
    with pytest.raises(UserError, match=r"has no file ending in \.mp4"):
        VIDEO.open(Data(path=str(bad)))


def test_inspect_tells_rates_durations_and_sound(tmp_path) -> None:
    import av

    from ssl_video.facts import facts_of

    write(tmp_path / "plain.mp4", moving(10))
    write(tmp_path / "slow.avi", moving(20), codec="mpeg4", fps=10)
    data = bytearray((tmp_path / "slow.avi").read_bytes())
    at = data.find(b"strh") + 8 + 32  # the stream header's length in frames
    assert int.from_bytes(data[at : at + 4], "little") == 20
    data[at : at + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "lies.avi").write_bytes(data)
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.height, picture.width, picture.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for image in moving(10):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 6400), np.float32), "fltp", "mono")
        tone.rate = 16000
        container.mux(sound.encode(tone))
        container.mux(sound.encode())
    found = facts_of(str(tmp_path / "slow.avi"))
    assert (found.frames, found.codec, found.sound) == (20, "mpeg4", False)
    assert found.fps == pytest.approx(10)
    source = VIDEO.open(Data(path=str(tmp_path)))
    facts = VIDEO.facts(source, range(len(source)))
    assert facts["codecs"] == {"h264": 2, "mpeg4": 2}
    assert facts["with sound"] == 1
    assert facts["wrong duration stated"] == 1
    assert facts["fps"] == "10 to 25, median 17.5"
    # A wrong duration changes nothing about what is decoded.
    reader = VIDEO.fit_reader(source, Data())
    records = {source[i].key: source[i] for i in range(len(source))}
    assert torch.equal(reader.decode(records["lies.avi"]), reader.decode(records["slow.avi"]))


def test_wrong_reader_options_name_the_key() -> None:
    for options, message in (
        ({"window": 0}, r"data\.options\.window: 0 is not"),
        ({"backend": "ffmpeg"}, "choose one of auto, decord, pyav"),
        ({"windw": 8}, "did you mean 'window'"),
    ):
        with pytest.raises(UserError, match=message):
            ReaderOptions.of(options)


@pytest.mark.parametrize("name", recipe_names(VIDEO))
def test_recipes_are_valid_and_make_views(name: str) -> None:
    taught = name in ("seed", "feature_distillation")  # their user names the teacher
    recipe = build(VIDEO, name, assignments=["method.teacher=RUN"] if taught else [])
    spec = {"channels": 3, "size": 40, "height": 40, "width": 40, "window": 64, "stride": 1}
    spec |= {"range": [0, 255], "mean": [0.5] * 3, "std": [0.25] * 3}
    policy = VIDEO.create_views(recipe.views.name, spec, recipe.views.options)
    ids = torch.arange(2)
    data = torch.zeros(2, 64, 40, 40, 3, dtype=torch.uint8)
    views = policy(Batch(data, ids, ids), Rng.at(0, 0, ids))
    assert views[0].data.shape[:2] == (2, 3)
    assert recipe.method.name in VIDEO.methods
    assert recipe.encoder.name in VIDEO.encoder_names()


@pytest.mark.parametrize(
    "name", [n for n in recipe_names(VIDEO) if n.endswith(("_k400", "_ucf101"))]
)
def test_nothing_of_the_laptop_default_shows_through_published_recipes(name: str) -> None:
    own, built = shipped(VIDEO, name), build(VIDEO, name)
    for section in ("views", "encoder", "method"):
        named = getattr(built, section)
        assert {"name": named.name, **named.options} == own[section]


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys, ssl_video, ssl_video.__main__; dir(ssl_video)\n"
        "assert not {'torch', 'decord', 'av'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names() -> None:
    assert ssl_video.VIDEO is VIDEO
    for name in ssl_video.__all__:
        assert getattr(ssl_video, name) is not None


def test_moments_of_a_model_stand_in_time(folder, tmp_path) -> None:
    settings = {"train.batch_size": 8, "data.workers": 0, "data.limit": 24}
    run = ssl_video.pretrain(
        data=str(folder), out=tmp_path / "run", steps=1, settings=settings, progress=False
    )
    model = ssl_video.load(run.path)
    moments, frames = ssl_video.embed_frames(model, str(folder), batch_size=7)
    assert moments.shape == (40, len(frames), model.dim)
    whole = np.arange(8) * 2  # the recipe's clip: 8 frames, 2 apart
    np.testing.assert_allclose(frames, whole.reshape(len(frames), -1).mean(1))
    np.testing.assert_allclose(moments.mean(1), model.embed(str(folder)), atol=1e-5)
    with pytest.raises(UserError, match="input 0: cannot be read"):
        ssl_video.embed_frames(model, [b"no video"])
