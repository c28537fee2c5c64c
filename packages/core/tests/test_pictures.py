"""Pictures: PNG files that other readers agree on, and the report's columns."""

import io

import numpy as np
import pytest
from PIL import Image

from ssl_core.report.pictures import png, section, stacked


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


def test_section_embeds_files_and_is_empty_without_any(tmp_path) -> None:
    assert section([]) == ""
    (tmp_path / "a.png").write_bytes(png(np.zeros((2, 2), np.uint8)))
    page = section([("view <1>", tmp_path / "a.png")])
    assert "view &lt;1&gt;" in page
    assert "data:image/png;base64,iVBOR" in page
