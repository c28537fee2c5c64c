"""Masks against released ones, their counts, round trips and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reference import GOLDEN
from ssl_core.errors import UserError
from ssl_core.networks.masks import RandomMasker, mask_from_order, rows_at
from ssl_core.rng import Rng

RATIOS = [0.25, 0.5, 0.6, 0.75, 0.9]


def keys(rows: int, step: int = 0) -> Rng:
    return Rng.at(0, step, torch.arange(rows))


@pytest.mark.parametrize(("samples", "trailing"), [(3, (2,)), (1, (2,)), (3, ()), (3, (2, 5))])
def test_rows_are_those_of_each_sample_and_gradients_go_back(
    samples: int, trailing: tuple[int, ...]
) -> None:
    """Against advanced indexing; a row that is asked for twice gets both gradients."""
    ids = torch.tensor([[1, 3, 3], [0, 2, 1], [2, 2, 2]])
    x = torch.randn(samples, 4, *trailing, dtype=torch.float64, requires_grad=True)
    expected = x.expand(3, *x.shape[1:])[torch.arange(3).unsqueeze(1), ids]
    rows = rows_at(x, ids)
    assert torch.equal(rows, expected)
    by_rows = torch.randn_like(rows)
    ours, theirs = (torch.autograd.grad(y, x, by_rows)[0] for y in (rows, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("unit", [1, 2])
def test_hidden_rows_are_listed_and_go_back_to_their_places(unit: int) -> None:
    mask = RandomMasker(0.75, unit=unit)(keys(3), 16, grid=(4, 4))
    x = torch.arange(3 * 16 * 2.0).view(3, 16, 2)
    rows = mask.concealed(x)
    assert rows.shape == (3, 12, 2)
    assert torch.equal(rows.sort(1).values, x[mask.hidden].view(3, 12, 2))
    around = mask.reveal(-rows.double(), x)
    assert torch.equal(around, torch.where(mask.hidden.unsqueeze(-1), -x, x))
    with pytest.raises(ValueError, match="does not list its hidden tokens"):
        RandomMasker(0.75, mode="replace")(keys(3), 16).concealed(x)


@pytest.mark.parametrize("ratio", RATIOS)
def test_drop_masks_equal_the_released_ones(ratio: float) -> None:
    """facebookresearch/mae, models_mae.py: random_masking."""
    case = f"r{ratio}".replace(".", "p")
    with np.load(GOLDEN / "mae" / "random_masking.npz") as golden:
        order = torch.from_numpy(golden["noise"]).argsort(dim=1)
        keep = 49 - RandomMasker(ratio).hidden_count(49)
        mask = mask_from_order(order, keep, mode="drop", grid=(7, 7))
        assert mask.ids_keep is not None
        assert mask.ids_restore is not None
        assert np.array_equal(mask.hidden.numpy(), golden[f"mask_{case}"])
        assert np.array_equal(mask.ids_restore.numpy(), golden[f"ids_restore_{case}"])
        kept = mask.keep(torch.from_numpy(golden["x"]))
        assert np.array_equal(kept.numpy(), golden[f"kept_{case}"])


@pytest.mark.parametrize("case", range(4))
def test_unit_masks_equal_the_released_ones(case: int) -> None:
    """microsoft/SimMIM, data/data_simmim.py: MaskGenerator; the first units drawn are hidden."""
    with np.load(GOLDEN / "simmim" / "mask_layout.npz") as golden:
        image, unit_pixels, patch, ratio = golden[f"c{case}_args"]
        order = torch.from_numpy(golden[f"c{case}_perm"]).flip(0)[None]
        expected = golden[f"c{case}_mask"]
        count = int(golden[f"c{case}_count_units"])
    unit, side = int(unit_pixels / patch), int(image / patch)
    masker = RandomMasker(float(ratio), mode="replace", unit=unit, count_rule="ceil")
    assert masker.hidden_count(order.shape[1]) == count
    mask = mask_from_order(
        order, order.shape[1] - count, mode="replace", grid=(side, side), unit=unit
    )
    assert np.array_equal(mask.hidden.reshape(side, side).numpy(), expected)


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("ratio", RATIOS)
def test_kept_then_restored_rows_are_in_place(ratio: float, unit: int) -> None:
    mask = RandomMasker(ratio, unit=unit, count_rule="round")(keys(5), 48, grid=(6, 8))
    x = torch.randn(5, 48, 3, generator=torch.manual_seed(0))
    fill = torch.full((3,), 7.0)
    restored = mask.restore(mask.keep(x), fill)
    assert torch.equal(restored, torch.where(mask.hidden[..., None], fill, x))
    assert mask.hidden.sum(1).tolist() == [round(48 / unit**2 * ratio) * unit**2] * 5


def test_units_are_hidden_as_a_whole_on_any_number_of_axes() -> None:
    mask = RandomMasker(0.5, mode="replace", unit=2)(keys(4), 64, grid=(4, 4, 4))
    cubes = mask.hidden.reshape(4, 2, 2, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6).reshape(4, 8, 8)
    assert torch.equal(cubes.all(-1), cubes.any(-1))
    assert cubes.any(-1).sum(1).tolist() == [4] * 4


def test_every_place_is_hidden_equally_often() -> None:
    mask = RandomMasker(0.75)(keys(4096), 16, grid=(4, 4))
    share = mask.hidden.double().mean(0)
    assert (share - 0.75).abs().max() < 4.5 * (0.75 * 0.25 / 4096) ** 0.5


def test_masks_are_a_function_of_the_key_alone() -> None:
    masker, rng = RandomMasker(0.6), keys(8)
    whole = masker(rng, 20)
    assert torch.equal(masker(rng[2:5], 20).hidden, whole.hidden[2:5])
    assert not torch.equal(masker(keys(8, step=1), 20).hidden, whole.hidden)


def test_ragged_tokens_hide_their_own_share_and_never_padding() -> None:
    lengths = torch.tensor([1, 3, 10, 16])
    valid = torch.arange(16) < lengths[:, None]
    masker = RandomMasker(0.5, mode="replace")
    mask = masker(keys(4), 16, maskable=valid)
    assert mask.hidden.sum(1).tolist() == [1, 1, 5, 8]
    assert not (mask.hidden & ~valid).any()
    longer = masker(keys(4), 20, maskable=torch.arange(20) < lengths[:, None])
    assert torch.equal(longer.hidden[:, :16], mask.hidden)  # padding changes nothing


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1])
def test_a_ratio_without_both_sides_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        RandomMasker(ratio)


def test_masks_that_hide_all_or_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="hides 1 of 1 units"):
        RandomMasker(0.6, mode="replace", unit=2, count_rule="ceil")(keys(2), 4, grid=(2, 2))
    with pytest.raises(UserError, match="hides 0 of 4"):
        RandomMasker(0.1, count_rule="round")(keys(2), 4)


def test_units_that_do_not_divide_the_grid_are_refused() -> None:
    with pytest.raises(UserError, match="7x7"):
        RandomMasker(0.6, unit=2)(keys(2), 49, grid=(7, 7))
    with pytest.raises(UserError, match="a set"):
        RandomMasker(0.6, unit=2)(keys(2), 49)
    with pytest.raises(ValueError, match="mode='replace' and unit=1"):
        RandomMasker(0.6)(keys(2), 4, maskable=torch.ones(2, 4, dtype=torch.bool))
