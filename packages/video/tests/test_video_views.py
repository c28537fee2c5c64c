"""Clips in time and space: golden values, distributions, and torchvision on whole clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from reference import golden, keys
from ssl_core.batch import Batch
from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.evaluation.embed import embed
from ssl_core.rng import Rng
from ssl_video.clips import clip_sizes, clips_from, frames_of
from ssl_video.domain import VIDEO
from ssl_video.files import plan
from ssl_video.views.pipeline import _repeated
from ssl_video.views.temporal import difference, looped, spread, starts

SPEC = {"channels": 3, "window": 24, "stride": 1, "size": 24, "range": [0.0, 255.0]}
SPEC |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def batch(rows: int = 6, frames: int = 24, side: int = 28) -> Batch:
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (rows, frames, side, side, 3), np.uint8)
    )
    return Batch(pixels, torch.arange(rows), torch.arange(rows))


def views(name: str, data: Batch, **options):
    policy = VIDEO.create_views(name, SPEC, options)
    return policy(data, Rng.at(0, 0, data.ids))


def test_a_short_video_begins_anew_as_in_pace() -> None:
    g = golden("video_order_pace/labels")
    for (start, rate, total), want in zip(
        g["pace_start_rate_numframes"].tolist(), g["pace_frame_numbers"].tolist(), strict=True
    ):
        # The released code counts frames from 1.
        one = plan.looped(start - 1, rate, 16, total) + 1
        assert one.tolist() == want
        start_rate = torch.tensor([start - 1]), torch.tensor([rate])
        assert (looped(*start_rate, 16, total) + 1).tolist() == [want]


def test_without_loop_a_paced_clip_has_no_jump_in_it() -> None:
    (view,) = views("pace", batch(40), size=8, frames=7, paces=3, loop=False)
    steps = view.params["frames"].diff(dim=1)
    assert torch.equal(steps, (view.params["pace"] + 1)[:, None].expand_as(steps))
    assert len(view.params["frames"][:, 0].unique()) > 4


def test_neighbouring_clips_have_linearly_decreasing_gaps() -> None:
    pair = starts(keys(20_000), 2, 11, "near")
    assert pair.min() == 0
    assert pair.max() == 11
    gap = (pair[:, 0] - pair[:, 1]).abs()
    # floor(12 (1 - sqrt(1 - u))): P(k) = (2 (12 - k) - 1) / 144
    want = torch.tensor([(2 * (12 - k) - 1) / 144 for k in range(12)])
    torch.testing.assert_close(gap.bincount(minlength=12) / 20_000, want, atol=0.012, rtol=0)
    assert 0.45 < (pair[:, 0] > pair[:, 1]).sum() / (gap > 0).sum() < 0.55
    assert starts(keys(50), 3, 11, "same").diff(dim=1).abs().max() == 0
    with pytest.raises(ValueError, match="between two clips"):
        starts(keys(2), 3, 11, "near")


def test_derivatives_of_still_linear_and_quadratic_clips() -> None:
    n = torch.arange(8.0)[None, None, :, None, None]
    a, b, c = torch.randn(3, 2, 3, 1, 4, 4).unbind(0)
    assert difference(a.expand(-1, -1, 8, -1, -1), 1).abs().max() == 0
    torch.testing.assert_close(
        difference(a + b * n, 2), torch.zeros(2, 3, 6, 4, 4), atol=1e-5, rtol=0
    )
    curve = a + b * n + c * n * n
    first, second = difference(curve, 1), difference(curve, 2)
    for k in range(1, 6):  # the expansion of three terms is exact: V(n + k) at n = 0
        ahead = curve[:, :, 0] + k * first[:, :, 0] + k * (k - 1) / 2 * second[:, :, 0]
        torch.testing.assert_close(ahead, curve[:, :, k], rtol=1e-4, atol=1e-4)


def test_a_clip_is_augmented_like_torchvision_does_it_frame_by_frame() -> None:
    data = batch(4)
    (view,) = views("clips", data, views=1, frames=5, stride=3, jitter=1.0, grey=0.0, strength=1.0)
    normal = torch.tensor(SPEC["mean"])[:, None, None], torch.tensor(SPEC["std"])[:, None, None]
    for row in range(4):
        frames = data.data[row][view.params["frames"][row]].permute(0, 3, 1, 2)  # [T, C, H, W]
        top, left, height, width = view.params["boxes"][row].tolist()
        x = tv.resized_crop(frames, top, left, height, width, [24, 24], antialias=True)
        x = tv.horizontal_flip(x) if view.params["flip"][row] else x
        x = x.float() / 255
        brightness, contrast, saturation, hue = view.params["jitter_factors"][row].tolist()
        steps = (
            lambda z, f=brightness: tv.adjust_brightness(z, f),
            lambda z, f=contrast: tv.adjust_contrast(z, f),
            lambda z, f=saturation: tv.adjust_saturation(z, f),
            lambda z, f=hue: tv.adjust_hue(z, f),
        )
        for step in view.params["jitter_order"][row].tolist():
            x = steps[step](x)
        want = ((x - normal[0]) / normal[1]).transpose(0, 1)  # [C, T, H, W]
        torch.testing.assert_close(view.data[row], want, atol=2e-3, rtol=0)


def test_whole_clips_and_single_frames_give_the_same_pixels() -> None:
    data, rng = batch(3), Rng.at(0, 0, torch.arange(3))
    for options in ({"blur": 1.0, "solarise": (1.0, 1.0)}, {"interpolation": "bicubic"}):
        policy = VIDEO.create_views("clips", SPEC, {"frames": 4, **options})
        for index in (torch.tensor([[0, 5, 10, 15]] * 3), torch.tensor([[7, 2, 9, 9]] * 3)):
            view = policy.views[0](data, index, rng)
            sizes = clip_sizes(data.data)
            each = _repeated(policy.views[0].spatial.sample(rng, sizes), 4)
            images = policy.views[0].spatial.apply(frames_of(data.data, index), each)
            assert torch.equal(view.data, clips_from(images, 4))


def test_a_still_video_stays_still_under_every_augmentation() -> None:
    data = batch(5)
    still = Batch(data.data[:, :1].expand(-1, 24, -1, -1, -1).contiguous(), data.ids, data.ids)
    for name, options in (
        ("clips", {"solarise": (0.5, 0.5), "blur": 1.0, "size": 24}),
        ("decoupled", {"frames": 6}),
        ("speeds", {"frames": 6}),
    ):
        for view in views(name, still, **options):
            assert (view.data - view.data[:, :, :1]).abs().max() < 1e-5
    (paced,) = views("pace", still, frames=6)
    assert (paced.data - paced.data[:, :, :1]).abs().max() > 0.05, "Pace colours frame by frame"


def test_clips_of_unequal_sizes_are_the_same_as_alone() -> None:
    data = batch(2)
    wide = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (24, 20, 44, 3), np.uint8))
    ragged = Batch([data.data[0], wide], data.ids, data.ids)
    for name in VIDEO.views:
        options = {"gap": 2} if name in ("order", "geometry", "triplet") else {}
        policy = VIDEO.create_views(name, SPEC, {"frames": 4, "size": 16} | options)
        both = policy(ragged, Rng.at(0, 0, data.ids))
        alone = policy(Batch(wide[None], data.ids[1:], data.ids[1:]), Rng.at(0, 0, data.ids[1:]))
        for one, other in zip(both, alone, strict=True):
            torch.testing.assert_close(one.data[1:], other.data, atol=1e-5, rtol=0)
        assert policy.plain(ragged).shape == (2, 3, 4, 16, 16)


def test_time_is_kept_as_provenance() -> None:
    data = batch(64)
    made = views("order", data, clips=3, frames=4, stride=2, gap=1)
    assert all(torch.equal(view.params["boxes"], made[0].params["boxes"]) for view in made)
    first, second, third = (view.params["frames"] for view in made)
    assert ((second - first) == 8).all()
    assert ((third - second) == 8).all()
    (paced,) = views("pace", data, frames=4)
    steps = paced.params["frames"].diff(dim=1)
    assert ((steps == paced.params["pace"][:, None] + 1) | (steps < 0)).all()
    assert set(paced.params["pace"].tolist()) == {0, 1, 2, 3}
    q, k, other = views("speeds", data, frames=4, stride=2)
    assert torch.equal(q.params["stride"], k.params["stride"])
    assert set((q.params["stride"] / other.params["stride"]).tolist()) == {0.5, 2.0}
    anchor, spatial, temporal, altered = views("decoupled", data, frames=4, stride=2)
    assert torch.equal(anchor.params["frames"], temporal.params["frames"])
    assert torch.equal(anchor.params["boxes"], spatial.params["boxes"])
    assert torch.equal(temporal.params["boxes"], altered.params["boxes"])
    assert not (altered.params["frames"] == temporal.params["frames"]).all(1).any()
    backwards = views("clips", data, frames=4, reverse=1.0)[0].params["frames"]
    assert (backwards.diff(dim=1) < 0).all()


def test_evaluation_averages_clips_spread_over_the_window() -> None:
    here = torch.device("cpu")
    assert spread(2, 5, 3, 24, here)[0].tolist() == [[5, 8, 11, 14, 17]] * 2
    starts = [index[0, 0].item() for index in spread(2, 4, 2, 24, here, clips=5)]
    assert starts == [0, 4, 8, 13, 17]
    data, spec = batch(3), {**SPEC, "test_clips": 5}
    policy = VIDEO.create_views("clips", spec, {"frames": 4, "stride": 2})
    made = policy.plains(data)
    assert len(made) == 5
    assert torch.equal(VIDEO.create_views("clips", SPEC, {"frames": 4}).plains(data)[0],
                       VIDEO.create_views("clips", SPEC, {"frames": 4}).plain(data))  # fmt: skip

    class Mean(torch.nn.Module):
        embed_dim = 3

        def forward(self, x: torch.Tensor) -> Features:
            return Features(x.mean((2, 3, 4)))

    found = embed(Mean(), policy, [data]).features
    want = torch.stack([clip.mean((2, 3, 4)) for clip in made]).mean(0)
    torch.testing.assert_close(found, want)


def test_wrong_options_say_what_to_change() -> None:
    for name, options, message in (
        ("clips", {"gap": "far"}, "gap must be free, near or same"),
        ("clips", {"scal": (0.1, 1)}, "did you mean 'scale'"),
        ("clips", {"frames": 0}, "frames must be a positive integer"),
        ("order", {"clips": 1}, "at least 2 clips"),
        ("pace", {"paces": 1}, "paces must be at least 2"),
        ("pace", {"frames": 8, "loop": False}, "clips of 8 frames, 4 apart, need 29 frames"),
        ("order", {"frames": 16}, "need 64 frames, the stored window has 24"),
        ("triplet", {"frames": 16, "gap": 8}, "need 32 frames, the stored window has 24"),
    ):
        with pytest.raises(UserError, match=message):
            VIDEO.create_views(name, SPEC, options)
