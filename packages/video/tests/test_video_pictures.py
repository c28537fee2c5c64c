"""Contact sheets: every pixel of the frames in its place."""

import numpy as np
import torch

from ssl_video.domain import VIDEO

SPEC = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1]}


def test_a_sheet_holds_the_frames_side_by_side() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 6)).astype(np.uint8)
    mean, std = (torch.tensor(SPEC[k])[:, None, None, None] for k in ("mean", "std"))
    clips = (torch.from_numpy(frames) / 255 - mean) / std
    clips[1, :, 2, :2] = torch.nan
    first, second = VIDEO.draw(clips, SPEC)
    assert first.shape == second.shape == (5, 4 * 6 + 3, 3)
    for n in range(4):
        place = np.s_[:, 7 * n : 7 * n + 6]
        np.testing.assert_array_equal(first[place], frames[0, :, n].transpose(1, 2, 0))
    assert (first[:, 6::7] == 255).all()
    assert (second[:2, 14:20] == 128).all(), "hidden parts are grey"


def test_long_clips_are_thinned_and_other_data_has_no_look() -> None:
    (sheet,) = VIDEO.draw(torch.zeros(1, 3, 33, 4, 4), SPEC)
    assert sheet.shape == (4, 8 * 4 + 7, 3)
    assert VIDEO.draw(torch.zeros(2, 7), SPEC) == []


def test_thumbnails_are_three_frames() -> None:
    spec = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    clip = torch.linspace(0, 1, 9)[None, None, :, None, None].expand(1, 3, 9, 4, 5)
    (picture,) = VIDEO.thumbnails(clip, spec)
    assert picture.shape == (4, 3 * 5 + 2, 3)
    assert picture[0, [0, 6, 12], 0].tolist() == [0, 128, 255]
