"""Both backends: the same frames bit for bit, whatever the container, rate, size and order."""

from __future__ import annotations

import gc
import io
import threading
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from ssl_core.errors import CorruptSample, UserError
from ssl_video.files.open import open_video
from ssl_video.files.plan import looped, segment, windows
from ssl_video.files.video import frame_rate
from video_files import moving, rotate, write

KINDS = {
    "constant.mp4": {},
    "variable.mp4": {"variable": True},
    "variable.mkv": {"variable": True, "group": 250},
    "old.avi": {"codec": "mpeg4"},
    "web.webm": {"codec": "libvpx-vp9"},
    "quick.mov": {"group": 1},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    pixels = moving()
    made = {name: write(folder / name, pixels, **options) for name, options in KINDS.items()}
    made["odd.mp4"] = write(folder / "odd.mp4", moving(height=46, width=70))
    made["narrow.mp4"] = write(folder / "narrow.mp4", moving(width=48))
    return made


def decoded_in_order(path):
    """Every frame by decoding from the start, the plainest way there is."""
    import av

    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.mark.parametrize("name", [*KINDS, "odd.mp4", "narrow.mp4"])
def test_both_backends_give_exactly_the_frames_asked_for(files, name) -> None:
    path = str(files[name])
    whole = decoded_in_order(path)
    numbers = np.array([17, 3, 29, 3, 12, 13, 0])
    for backend in ("decord", "pyav"):
        for payload in (path, files[name].read_bytes()):
            with open_video(payload, backend=backend) as video:
                assert len(video) == len(whole) == 30
                np.testing.assert_array_equal(video.frames(numbers), whole[numbers])
                np.testing.assert_array_equal(video.frames(np.arange(4, 9)), whole[4:9])


@pytest.mark.parametrize("name", KINDS)
def test_both_backends_agree_on_time(files, name) -> None:
    with (
        open_video(str(files[name]), backend="decord") as one,
        open_video(str(files[name]), backend="pyav") as other,
    ):
        np.testing.assert_allclose(one.times, other.times, atol=2e-3)
        assert frame_rate(one) == pytest.approx(frame_rate(other), rel=1e-3)
        if name.startswith("variable"):
            assert np.diff(one.times).std() > 0.02
            return
        assert frame_rate(one) == pytest.approx(25, rel=0.01)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_stored_in_the_file_is_applied(tmp_path, degrees) -> None:
    path = write(tmp_path / "turned.mp4", moving(8))
    stored = decoded_in_order(path)
    rotate(path, degrees)
    found = {}
    for backend in ("decord", "pyav"):
        with open_video(str(path), backend=backend) as video:
            found[backend] = video.frames(np.arange(8))
    np.testing.assert_array_equal(found["decord"], found["pyav"])
    np.testing.assert_array_equal(found["pyav"], np.rot90(stored, -degrees // 90, axes=(1, 2)))


def test_pictures_and_arrays_are_videos(tmp_path) -> None:
    pixels = moving(12)
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(frames / f"frame{number}.png")
    images = [Image.fromarray(image) for image in pixels // 64 * 64]
    images[0].save(
        tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=50, optimize=False
    )
    np.save(tmp_path / "a.npy", pixels)
    numbers = np.array([10, 2, 2, 11])
    for payload in (frames, tmp_path / "a.npy", pixels):
        with open_video(payload) as video:
            assert len(video) == 12
            np.testing.assert_array_equal(video.frames(numbers), pixels[numbers])
    for payload in (tmp_path / "a.gif", (tmp_path / "a.gif").read_bytes()):
        with open_video(payload) as video:
            assert len(video) == 12
            assert frame_rate(video) == pytest.approx(20)
            got = video.frames(numbers).astype(int)
            assert np.abs(got - pixels[numbers] // 64 * 64).mean() < 8
    with open_video(pixels[..., 0]) as video:
        np.testing.assert_array_equal(video.frames(numbers)[..., 2], pixels[numbers, ..., 0])


def damaged(folder):
    """Files that cannot be read, and why each one."""
    whole = write(folder / "whole.mp4", moving(40, 96, 128)).read_bytes()
    middle = bytearray(whole)
    at = whole.find(b"mdat") + 200
    middle[at : at + 20_000] = np.random.default_rng(0).bytes(20_000)
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"not a video at all" * 50,
        "cut.mp4": whole[: len(whole) // 2],
        "middle.mp4": bytes(middle),
        "header.mp4": whole[:40],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return contents


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_damaged_files_raise_at_once_and_write_nothing_of_their_bits(
    tmp_path, backend, capfd
) -> None:
    for name in damaged(tmp_path):
        with (
            pytest.raises(CorruptSample),
            open_video(str(tmp_path / name), backend=backend) as video,
        ):
            video.frames(np.arange(len(video)))
    assert "h264" not in capfd.readouterr().err
    with pytest.raises(CorruptSample, match="does not exist"), open_video(tmp_path / "no.mp4"):
        pass


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")]
)
def test_what_a_decoder_mends_is_not_passed_on_as_a_picture(tmp_path, name, codec) -> None:
    """A few wrong bytes in the middle: the decoder guesses and goes on; we refuse."""
    pixels = moving(60, 96, 128)
    whole = write(tmp_path / name, pixels, codec=codec).read_bytes()
    with open_video(whole) as video:
        intact = video.frames(np.arange(60))
    random, refused = np.random.default_rng(0), 0
    for _ in range(8):
        harmed = bytearray(whole)
        at = int(len(whole) * random.uniform(0.75, 0.95))
        harmed[at : at + 60] = random.bytes(60)
        try:
            with open_video(bytes(harmed)) as video:
                video.frames(np.arange(len(video)))
        except CorruptSample:
            refused += 1
        # What lies before the damage is whole.
        with open_video(bytes(harmed)) as video:
            np.testing.assert_array_equal(video.frames(np.arange(2)), intact[:2])
    assert refused >= 3, "of 8: others are indistinguishable from another picture"


def test_frames_that_change_their_size_are_damage(tmp_path) -> None:
    import av

    with av.open(str(tmp_path / "two.ts"), "w", format="mpegts") as container:
        stream, shown = None, 0
        for height, width in ((48, 64), (64, 96)):
            with av.open(io.BytesIO(), "w", format="h264") as other:
                part = other.add_stream("libx264", rate=25)
                part.height, part.width, part.pix_fmt = height, width, "yuv420p"
                part.options = {"bf": "0"}
                packets = []
                for image in moving(6, height, width):
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    packets += part.encode(frame)
                packets += part.encode()
                if stream is None:
                    stream = container.add_stream_from_template(part)
                for packet in packets:
                    packet.stream, packet.time_base = stream, Fraction(1, 25)
                    packet.pts = packet.dts = shown
                    shown += 1
                    container.mux(packet)
    with open_video(str(tmp_path / "two.ts")) as video:
        assert video.frames(np.arange(6)).shape == (6, 48, 64, 3)
        with pytest.raises(CorruptSample, match="changes its frames' size"):
            video.frames(np.arange(len(video)))


def test_a_file_with_sound_alone_has_no_video(tmp_path) -> None:
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        sound.rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    for backend in ("decord", "pyav"):
        with (
            pytest.raises(CorruptSample),
            open_video(str(tmp_path / "sound.mp4"), backend=backend),
        ):
            pass


def test_wrong_pictures_and_arrays_say_what_is_wrong(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.gif").write_bytes(b"GIF89a and then nothing")
    np.save(tmp_path / "flat.npy", np.zeros((4, 4), np.uint8))
    for payload, reason in (
        (tmp_path / "empty", "without pictures"),
        (tmp_path / "bad.gif", "not an animated picture"),
        (tmp_path / "flat.npy", r"a video is \[frames, height, width\]"),
        (np.zeros((2, 4, 4, 3), np.float32), "frames are uint8"),
        (b"", "empty"),
    ):
        with pytest.raises(CorruptSample, match=reason), open_video(payload):
            pass
    with pytest.raises(UserError, match="choose one of auto"), open_video(b"x", backend="vlc"):
        pass


def test_closed_readers_leave_no_threads_and_no_memory(files) -> None:
    def resident() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 2**20

    def once() -> None:
        for backend in ("decord", "pyav"):
            with open_video(str(files["constant.mp4"]), backend=backend) as video:
                video.frames(np.arange(5, 21))

    for _ in range(40):
        once()
    gc.collect()
    threads, before = threading.active_count(), resident()
    for _ in range(150):
        once()
    gc.collect()
    assert threading.active_count() == threads
    assert resident() - before < 12, "megabytes after 300 more opens"


def test_frames_are_planned_before_decoding() -> None:
    assert looped(2, 3, 6, 10).tolist() == [2, 5, 8, 0, 3, 6]
    assert windows(100, count=4, stride=5).tolist() == [42, 47, 52, 57]
    assert windows(3, count=5, stride=1, key=7).tolist() == [0, 1, 2, 0, 1]
    drawn = {int(windows(100, count=4, stride=5, key=key)[0]) for key in range(2000)}
    assert drawn == set(range(85))
    assert windows(100, count=4, stride=5, key=3).tolist() == (
        windows(100, count=4, stride=5, key=3).tolist()
    )


def test_segments_are_cut_by_time_also_at_variable_rates() -> None:
    times = np.array([0.0, 0.1, 0.5, 0.6, 2.0])
    assert segment(times, {"start": "0.1", "end": 0.6}) == (1, 3)
    assert segment(times, {"start": None, "end": ""}) == (0, 5)
    with pytest.raises(CorruptSample, match=r"no frame lies between 0\.7 s and 1\.9 s"):
        segment(times, {"start": 0.7, "end": 1.9})
    with pytest.raises(CorruptSample, match="start 'soon' is not a number"):
        segment(times, {"start": "soon"})


def test_frames_on_the_way_are_decoded_only_where_others_refer_to_them(
    tmp_path, monkeypatch
) -> None:
    """H.264 with B-frames: the wanted frames keep every bit, most others never leave a decoder."""
    from ssl_video.files.pyav import Found

    path = write(tmp_path / "long.mp4", moving(80), group=250)
    whole, seen = decoded_in_order(path), []
    take = Found.take

    def counted(self, frames, key):
        seen.extend(frames)
        take(self, frames, key)

    monkeypatch.setattr(Found, "take", counted)
    with open_video(str(path), backend="pyav") as video:
        for numbers in ([70], [9, 13, 17], [79, 0], [41, 42]):  # forwards and back, in one reader
            np.testing.assert_array_equal(video.frames(np.array(numbers)), whole[numbers])
        del seen[:]
        video.frames(np.array([70]))
    assert len(seen) <= 45, "of the 71 frames up to the wanted one"
