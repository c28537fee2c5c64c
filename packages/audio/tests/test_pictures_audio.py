"""The report's pictures: axes, hidden parts, and a masked run that draws its guesses."""

import numpy as np
import torch
from PIL import Image

import ssl_audio
from ssl_audio.pictures import draw


def test_low_frequencies_are_drawn_below_and_hidden_parts_flat() -> None:
    data = torch.full((1, 1, 4, 6), -2.5)
    data[0, 0, 0, :] = 2.5
    data[0, 0, 3, 5] = torch.nan
    picture = draw(data)[0]
    assert picture.shape == (4, 6, 3)
    assert picture[3].sum() > picture[1].sum()
    assert picture[0, 5].tolist() == [176, 190, 200]


def test_waves_fill_their_height_and_unknown_data_is_not_drawn() -> None:
    picture = draw(torch.sin(torch.arange(3200) / 5)[None])[0]
    assert picture.shape == (64, 320, 3)
    assert (picture == 40).any(1).mean() > 0.9
    assert draw([1, 2]) == []


def test_a_masked_run_shows_views_hidden_parts_and_guesses(tmp_path) -> None:
    from ssl_audio.domain import AUDIO

    AUDIO.samples(tmp_path / "data", count=30, seed=0)
    run = ssl_audio.pretrain(
        data=str(tmp_path / "data"),
        out=tmp_path / "run",
        recipe="mae",
        settings={"train.steps": 2, "train.batch_size": 4},
        progress=False,
    )
    captions = [caption for caption, _ in run.pictures()]
    assert captions == ["view 1", "hidden", "predicted"]
    arrays = [np.asarray(Image.open(file)).astype(int) for _, file in run.pictures()]
    flat = (arrays[1] == [176, 190, 200]).all(-1)
    assert 0.4 < flat.mean() < 0.9
    assert np.array_equal(arrays[0][~flat], arrays[2][~flat])
    assert "data:image/png" in run.report_file.read_text()
