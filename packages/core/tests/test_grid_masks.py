"""Tubes, squares, rectangles, spans and blocks to predict, against released samplers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reference import golden, keys
from ssl_core.errors import UserError
from ssl_core.networks.grid_masks import BlockMasker, SquareMasker, TubeMasker
from ssl_core.networks.masks import RandomMasker
from ssl_core.networks.multi_block import Blocks, MultiBlockMasker, block_sides, some_of
from ssl_core.networks.span_masks import SpanMasker

TUBES = TubeMasker(RandomMasker(0.9, count_rule="floor"))


def neighbours(cells: Tensor) -> float:
    """Mean number of 4-neighbours of the same kind, over the True cells of `[B, h, w]`."""
    x = cells.double()
    same = torch.zeros_like(x)
    same[:, 1:] += x[:, :-1]
    same[:, :-1] += x[:, 1:]
    same[:, :, 1:] += x[:, :, :-1]
    same[:, :, :-1] += x[:, :, 1:]
    return float(same[cells].mean())


def test_a_tube_hides_the_same_cells_at_every_time() -> None:
    """MCG-NJU/VideoMAE, masking_generator.py: int(0.9 x 15) of every slot."""
    released = golden("videomae/tube_target")["mask"].reshape(6, 2, 15)
    mask = TUBES(keys(6), 30, grid=(2, 3, 5))
    slots = mask.hidden.reshape(6, 2, 15)
    assert torch.equal(slots[:, 0], slots[:, 1])
    assert torch.equal(slots.sum(2).double(), released.sum(2))
    assert mask.ids_keep is not None
    assert mask.ids_keep.shape == (6, 4)
    assert not mask.hidden.gather(1, mask.ids_keep).any()
    big = TUBES(keys(2), 8 * 196, grid=(8, 14, 14))
    assert big.hidden.reshape(2, 8, 196).sum(2).tolist() == [[176] * 8] * 2


def test_tubes_along_other_axes_hide_whole_frames() -> None:
    frames = TubeMasker(RandomMasker(0.5, mode="replace"), along=(0,))
    hidden = frames(keys(3), 40, grid=(4, 10)).hidden.reshape(3, 4, 10)
    assert torch.equal(hidden.all(1), hidden.any(1))
    assert hidden.any(1).sum(1).tolist() == [5] * 3
    last = TubeMasker(RandomMasker(0.5, mode="replace"), along=(-1,))
    hidden = last(keys(3), 40, grid=(4, 10)).hidden.reshape(3, 4, 10)
    assert torch.equal(hidden.all(2), hidden.any(2))
    with pytest.raises(UserError, match="along axes"):
        TubeMasker(RandomMasker(0.5), along=(0, 1))(keys(2), 40, grid=(4, 10))


@pytest.mark.parametrize(
    ("case", "side", "masker"),
    [
        ("inverse_08_len5", 16, SquareMasker(0.8, 5, adjust=0.07, inverse=True)),
        ("inverse_08_len5_noadjust", 16, SquareMasker(0.8, 5, inverse=True)),
        ("plain_06_len3", 14, SquareMasker(0.6, 3, mode="replace")),
    ],
)
def test_squares_are_distributed_as_released(case: str, side: int, masker: SquareMasker) -> None:
    """facebookresearch/fairseq, data_utils.py: compute_block_mask_2d, 400 draws of each."""
    expected = golden("data2vec/block_mask_statistics")
    mask = masker(keys(1200), side * side, grid=(side, side))
    assert mask.hidden.sum(1).unique().tolist() == expected[f"{case}_count"].tolist()
    cells = mask.hidden.reshape(-1, side, side)
    assert (cells.double().mean(0) - expected[f"{case}_rate_map"]).abs().max() < 0.12
    assert abs(neighbours(cells) - expected[f"{case}_masked_neighbours"]) < 0.05
    assert abs(neighbours(~cells) - expected[f"{case}_visible_neighbours"]) < 0.05


def test_squares_on_one_and_three_axes() -> None:
    expected = golden("data2vec/block_mask_statistics")
    mask = SquareMasker(0.5, 5, adjust=0.05, inverse=True)(keys(1200), 200, grid=(200,))
    assert mask.hidden.sum(1).unique().tolist() == expected["inverse1d_count"].tolist()
    assert (mask.hidden.double().mean(0) - expected["inverse1d_rate"]).abs().max() < 0.12
    cubes = SquareMasker(0.75, 2, inverse=True)(keys(4), 64, grid=(4, 4, 4))
    assert cubes.hidden.sum(1).tolist() == [48] * 4


def test_rectangles_hide_an_exact_number_in_few_pieces() -> None:
    mask = BlockMasker(75 / 196)(keys(300), 196, grid=(14, 14))
    assert mask.hidden.sum(1).unique().tolist() == [75]
    cells = mask.hidden.reshape(-1, 14, 14)
    single = RandomMasker(75 / 196, mode="replace")(keys(300), 196).hidden.reshape(-1, 14, 14)
    assert neighbours(cells) > 2.7 > 1.7 > neighbours(single)
    rows = BlockMasker(0.4, least=4)(keys(50), 64, grid=(4, 16)).hidden
    assert rows.sum(1).unique().tolist() == [25]
    with pytest.raises(UserError, match="2 axes"):
        BlockMasker(0.4)(keys(2), 64, grid=(4, 4, 4))


def test_spans_hide_what_wav2vec_hides_and_never_padding() -> None:
    mask = SpanMasker(0.65, 10)(keys(400), 500, grid=(500,))
    assert abs(mask.hidden.double().mean() - 0.49) < 0.02
    edges = torch.nn.functional.pad(mask.hidden.int(), (1, 1)).diff(dim=1)
    starts, ends = (edges == 1).nonzero(), (edges == -1).nonzero()
    assert (ends[:, 1] - starts[:, 1]).min() == 10
    valid = torch.arange(30) < torch.tensor([[30], [12], [4], [1]])
    valid[:, 0] = torch.tensor([False, False, False, True])
    ragged = SpanMasker(0.3, 6)(keys(4), 30, maskable=valid)
    assert not (ragged.hidden & ~valid).any()
    assert (ragged.hidden.sum(1) >= 1).all()
    assert ragged.hidden[2].sum() == 3  # cut at the end of a sample shorter than a span


@pytest.mark.parametrize(
    "masker",
    [TUBES, SquareMasker(0.6, 2), TubeMasker(BlockMasker(0.5, least=2)), SquareMasker(0.5, 3)],
)
def test_masks_are_a_function_of_the_key_alone(masker: TubeMasker) -> None:
    whole = masker(keys(8), 72, grid=(2, 6, 6))
    part = masker(keys(8)[2:5], 72, grid=(2, 6, 6))
    assert torch.equal(part.hidden, whole.hidden[2:5])
    assert whole.hidden.unique(dim=0).shape[0] > 5
    with pytest.raises(UserError, match="on a grid"):
        masker(keys(2), 72)


def test_block_sides_equal_the_released_ones() -> None:
    """facebookresearch/ijepa, multiblock.py and facebookresearch/jepa, multiblock3d.py."""
    expected = golden("ijepa/mask_collator")
    for (u_target, u_context), target, context in zip(
        expected["u"].tolist(), expected["target_hw"], expected["context_hw"], strict=True
    ):
        assert block_sides(u_target, (14, 14), (0.15, 0.2), (0.75, 1.5)) == tuple(target.tolist())
        sides = block_sides(u_context, (14, 14), (0.85, 1.0), (1.0, 1.0))
        assert sides == tuple(context.tolist())
    expected = golden("vjepa/mask_statistics")
    for kind, scale in (("short", 0.15), ("long", 0.7)):
        for seed, (_, height, width) in enumerate(expected[f"{kind}_block_thw_by_seed"].tolist()):
            generator = torch.Generator().manual_seed(seed)
            unit = torch.rand(3, generator=generator)[2].item()
            got = block_sides(unit, (14, 14), (scale, scale), (0.75, 1.5))
            assert got == (min(height, 13), min(width, 13))


def check(blocks: Blocks) -> None:
    mask = blocks.mask()
    assert mask.hidden.gather(1, blocks.targets.flatten(1)).all()
    assert not mask.hidden.gather(1, blocks.context).any()


def test_contexts_and_targets_are_disjoint_blocks() -> None:
    masker = MultiBlockMasker()
    shapes = set()
    for step in range(20):
        blocks = masker(keys(32), (14, 14), step=step)
        check(blocks)
        shapes.add(blocks.targets.shape[2])
        assert blocks.context.shape == (32, 59)
        low, high = blocks.targets.amin(2), blocks.targets.amax(2)
        height, width = high // 14 - low // 14 + 1, high % 14 - low % 14 + 1
        assert (height * width == blocks.targets.shape[2]).all()
        # Repeats would mean that fewer than K places were left: rare at this size.
        assert (blocks.context.sort(1).values.diff(dim=1) > 0).double().mean() > 0.995
    assert len(shapes) >= 3
    assert torch.equal(
        masker(keys(8)[3:5], (14, 14), step=1).context,
        masker(keys(8), (14, 14), step=1).context[3:5],
    )


@pytest.mark.parametrize(
    ("kind", "masker"),
    [
        (
            "short",
            MultiBlockMasker(8, (0.15, 0.15), context_scale=None, keep=0.01, predict=0.99, tries=1),
        ),
        (
            "long",
            MultiBlockMasker(2, (0.7, 0.7), context_scale=None, keep=0.01, predict=0.99, tries=1),
        ),
    ],
)
def test_unions_hide_what_v_jepa_hides(kind: str, masker: MultiBlockMasker) -> None:
    expected = golden("vjepa/mask_statistics")
    shares, rates = [], []
    for step in range(120):
        targets = masker(keys(16).fold(step), (14, 14), step=step).targets.flatten(1)
        hidden = torch.zeros(16, 196, dtype=torch.bool).scatter_(1, targets, True)
        shares.append(hidden.double().mean())
        rates.append(hidden.double().mean(0))
    assert abs(torch.stack(shares).mean() - expected[f"{kind}_target_share_b1"].mean()) < 0.02
    rate = torch.stack(rates).mean(0).reshape(14, 14)
    assert (rate - expected[f"{kind}_target_rate_map"]).abs().mean() < 0.06


def test_blocks_of_clips_span_all_time_and_unions_have_one_group() -> None:
    masker = MultiBlockMasker(3, (0.15, 0.15), context_scale=None, keep=0.25, union=True)
    blocks = masker(keys(5), (4, 6, 8), step=2)
    check(blocks)
    assert blocks.context.shape == (5, 4 * 12)
    assert blocks.targets.shape == (5, 1, 4 * 24)
    slots = blocks.mask().hidden.reshape(5, 4, 48)
    assert torch.equal(slots.any(1), slots.all(1))
    line = MultiBlockMasker(2, keep=0.4)(keys(5), (40,), step=0)
    check(line)
    assert (line.targets.diff(dim=2) == 1).all()


def test_a_grid_without_room_for_a_context_is_refused() -> None:
    with pytest.raises(UserError, match="leave less than"):
        MultiBlockMasker(1, (0.9, 0.9), keep=0.6)(keys(2), (4, 4), step=0)
    with pytest.raises(UserError, match="on a grid"):
        MultiBlockMasker()(keys(2), (), step=0)


def test_some_of_repeats_where_there_are_too_few() -> None:
    chosen = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]).bool()
    assert some_of(chosen, 2).tolist() == [[1, 3], [2, 2]]
    assert some_of(chosen, 3, torch.tensor([2, 0])).tolist() == [[3, 4, 1], [2, 2, 2]]
    assert some_of(chosen, 5)[0].tolist() == [1, 3, 4, 1, 3]
