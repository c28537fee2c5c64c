"""Pictures: PNG files that other readers agree on, and sheets of many small ones."""

import io

import numpy as np
import pytest
from PIL import Image

from ssl_core.report.pictures import png, stacked
from ssl_core.report.sprites import COLUMNS, columns, fitted, sprite


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_png_reads_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_png_refuses_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match="float64"):
        png(np.zeros((2, 2)))


def test_stacked_keeps_every_pixel_and_widens_with_white() -> None:
    whole = stacked([np.zeros((2, 3), np.uint8), np.ones((4, 5), np.uint8)])
    assert whole.shape == (2 + 2 + 4, 5)
    assert (whole[:2, :3] == 0).all()
    assert (whole[:2, 3:] == 255).all()
    assert (whole[2:4] == 255).all()
    assert (whole[4:] == 1).all()


@pytest.mark.parametrize("colour", [False, True])
def test_filters_make_smooth_pictures_small(colour: bool) -> None:
    x, y = np.meshgrid(np.arange(200), np.arange(100))
    smooth = ((2 * x + 3 * y) % 256).astype(np.uint8)
    smooth = np.stack([smooth, smooth // 2, 255 - smooth], axis=2) if colour else smooth
    file = png(smooth)
    with Image.open(io.BytesIO(file)) as image:
        assert np.array_equal(np.asarray(image), smooth)
    assert len(file) < smooth.size / 30


def test_a_sprite_holds_every_picture_in_its_cell() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(60)]
    file, cell = sprite(pictures)
    assert cell == [30, 20]  # never scaled up
    with Image.open(io.BytesIO(file)) as image:
        sheet = np.asarray(image)
    assert sheet.shape == (3 * 20, COLUMNS * 30, 3)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, COLUMNS)
        assert np.array_equal(
            sheet[row * 20 : row * 20 + 20, column * 30 : column * 30 + 30], picture
        )


def test_a_sprite_keeps_to_its_budget_by_shrinking() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(30)]
    file, cell = sprite(noise, budget=100_000)
    assert len(file) <= 100_000
    assert 16 <= cell[0] < 64
    grey = [np.full((200, 100), 9, np.uint8)]
    assert sprite(grey)[1] == [48, 96]
    assert fitted(np.zeros((200, 100, 3), np.uint8), 48, 96).shape == (96, 48, 3)


def test_columns_shrink_together_to_their_budget() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 96, 3), dtype=np.uint8) for _ in range(4)]
    grey = [np.zeros((10, 12), np.uint8)]
    whole = columns({"a": noise, "b": grey})
    with Image.open(io.BytesIO(whole["a"])) as image:
        assert np.array_equal(np.asarray(image), stacked(noise))
    few = columns({"a": noise, "b": grey}, budget=50_000)
    assert sum(map(len, few.values())) <= 50_000
    assert list(few) == ["a", "b"]
    with Image.open(io.BytesIO(few["a"])) as image:
        assert image.width < 96
