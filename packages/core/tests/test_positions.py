"""Positions against released tables, closed forms and other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from reference import GOLDEN
from ssl_core.networks.positions import (
    RelativePositionBias,
    grid_coords,
    resample_positions,
    sincos,
    sincos_grid,
)


def test_sincos_equals_the_released_mae_tables() -> None:
    """facebookresearch/mae, util/pos_embed.py: get_2d_sincos_pos_embed."""
    with np.load(GOLDEN / "mae" / "sincos_2d.npz") as golden:
        for name, side, dim, rows in [
            ("pos_16_grid4_cls", 4, 16, 1),
            ("pos_24_grid3", 3, 24, 0),
            ("pos_8_grid5", 5, 8, 0),
        ]:
            table = sincos_grid((side, side), dim).numpy()
            np.testing.assert_allclose(table, golden[name][rows:], atol=1e-12)


@pytest.mark.parametrize(("axes", "dim"), [(1, 6), (2, 16), (3, 24), (3, 32), (2, 10)])
def test_sincos_closed_form_in_any_number_of_axes(axes: int, dim: int) -> None:
    coords = torch.randn(5, axes, dtype=torch.float64, generator=torch.manual_seed(0))
    width = 2 * (dim // (2 * axes))
    expected = torch.zeros(5, dim, dtype=torch.float64)
    for row in range(5):
        for share in range(axes):
            position = coords[row, axes - 1 - share]
            for i in range(width // 2):
                angle = position * 10_000 ** (-2 * i / width)
                expected[row, share * width + i] = torch.sin(angle)
                expected[row, share * width + width // 2 + i] = torch.cos(angle)
    torch.testing.assert_close(sincos(coords, dim), expected)


def test_sincos_of_another_resolution_covers_the_same_extent() -> None:
    """Cell centres of a 2 x 2 grid lie half-way between those of a 4 x 4 grid."""
    coarse = sincos_grid((2, 2), 16, like=(4, 4))
    exact = sincos(torch.tensor([[0.5, 0.5], [0.5, 2.5], [2.5, 0.5], [2.5, 2.5]]), 16)
    torch.testing.assert_close(coarse, exact)
    assert torch.equal(sincos_grid((4, 4), 16, like=(4, 4)), sincos_grid((4, 4), 16))


def test_tables_are_kept_but_never_without_numbers() -> None:
    """Neither one of inference, of which no gradient can be taken, nor one of planning."""
    with FakeTensorMode():
        sincos_grid((5, 3), 12)
    with torch.inference_mode():
        table = sincos_grid((5, 3), 12)
    assert sincos_grid((5, 3), 12) is table
    torch.testing.assert_close(table, sincos(grid_coords((5, 3)), 12))
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    (table * weight).sum().backward()
    assert weight.grad is not None
    assert sincos_grid((5, 3), 12, like=(3, 3)) is not table


def test_too_few_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="3 axes need more than 4"):
        sincos_grid((2, 2, 2), 4)


def test_coordinates_are_in_raster_order() -> None:
    expected = [[i, j, k] for i in range(2) for j in range(3) for k in range(4)]
    assert grid_coords((2, 3, 4)).tolist() == expected


@pytest.mark.parametrize("to", [(3, 9), (14, 14), (7, 5)])
def test_learned_tables_interpolate_as_antialiased_bicubic(to: tuple[int, int]) -> None:
    table = torch.randn(49, 8, generator=torch.manual_seed(0))
    image = table.reshape(1, 7, 7, 8).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=to, mode="bicubic", antialias=True)
    expected = image.permute(0, 2, 3, 1).reshape(-1, 8)
    torch.testing.assert_close(resample_positions(table, (7, 7), to), expected)


def test_interpolation_keeps_constants_and_identity() -> None:
    table = torch.randn(24, 5, generator=torch.manual_seed(0))
    assert resample_positions(table, (2, 3, 4), (2, 3, 4)) is table
    constant = torch.ones(24, 5)
    moved = resample_positions(constant, (2, 3, 4), (4, 2, 7))
    torch.testing.assert_close(moved, torch.ones(56, 5))


def test_interpolation_to_another_number_of_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot go to"):
        resample_positions(torch.zeros(16, 2), (4, 4), (16,))


def test_relative_index_equals_the_released_one() -> None:
    """microsoft/SimMIM, models/vision_transformer.py: RelativePositionBias (4 x 4 plus class)."""
    with np.load(GOLDEN / "simmim" / "tiny_vit.npz") as golden:
        index = golden["w.encoder.rel_pos_bias.relative_position_index"]
    assert np.array_equal(RelativePositionBias((4, 4), 2).index((4, 4), 1).numpy(), index)


def test_relative_bias_depends_on_the_offset_alone() -> None:
    module = RelativePositionBias((3, 5), 2)
    torch.nn.init.normal_(module.relative_position_bias_table)
    bias = module((3, 5))
    coords = grid_coords((3, 5))
    offsets = (coords[:, None] - coords[None, :]).flatten(0, 1)
    seen: dict[tuple[int, ...], torch.Tensor] = {}
    for offset, value in zip(offsets.tolist(), bias.flatten(1).T, strict=True):
        assert torch.equal(seen.setdefault(tuple(offset), value), value)
    assert len(seen) == 5 * 9
    smaller = module((2, 4))
    picked = [i * 5 + j for i in range(2) for j in range(4)]
    assert torch.equal(smaller, bias[:, picked][:, :, picked])
    with pytest.raises(ValueError, match="grids up to"):
        module((4, 5))
