"""Patches: order, round trips, equality with convolutions, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reference import GOLDEN
from ssl_core.errors import UserError
from ssl_core.networks.patch_embed import PatchEmbed, patchify, unpatchify
from ssl_core.networks.vit import sized

CASES = [((12,), (3,)), ((8, 12), (4, 3)), ((4, 6, 8), (2, 3, 4))]


def test_patches_equal_the_released_order() -> None:
    """facebookresearch/mae, models_mae.py: patchify."""
    with np.load(GOLDEN / "mae" / "tiny_forward.npz") as golden:
        patches = patchify(torch.from_numpy(golden["imgs"]), (4, 4))
        assert np.array_equal(patches.numpy(), golden["patches"])


@pytest.mark.parametrize(("sides", "patch"), CASES)
@pytest.mark.parametrize("channels", [1, 5])
def test_unpatchify_inverts_patchify(
    sides: tuple[int, ...], patch: tuple[int, ...], channels: int
) -> None:
    x = torch.randn(2, channels, *sides, generator=torch.manual_seed(0))
    grid = tuple(s // p for s, p in zip(sides, patch, strict=True))
    patches = patchify(x, patch)
    assert patches.shape == (2, math.prod(grid), math.prod(patch) * channels)
    assert torch.equal(unpatchify(patches, patch, grid), x)


@pytest.mark.parametrize(("sides", "patch"), CASES)
def test_embedding_equals_the_strided_convolution(
    sides: tuple[int, ...], patch: tuple[int, ...]
) -> None:
    embed = PatchEmbed(3, patch, 7).double()
    torch.nn.init.normal_(embed.proj.bias)
    x = torch.randn(2, 3, *sides, dtype=torch.float64, generator=torch.manual_seed(0))
    expected = embed.proj(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(patchify(x, patch)), expected)
    assert embed.token_dim == 3 * math.prod(patch)


def test_channels_last_images_give_the_same_patches() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.manual_seed(0))
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(patchify(last, (4, 4)), patchify(x, (4, 4)))


@pytest.mark.parametrize("sides", [(33, 32), (2, 4), (32,)])
def test_sizes_that_do_not_fit_are_named(sides: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="cannot be cut into patches of 4x4"):
        patchify(torch.zeros(1, 3, *sides), (4, 4))


def test_sizes_and_patches_are_named_in_one_way() -> None:
    made = sized("here", "vit_small_patch7", {"small": {"dim": 3}}, dict)  # type: ignore[arg-type]
    assert made(depth=2) == {"patch": 7, "dim": 3, "depth": 2}
    for wrong in ("vit_tiny_patch7", "vit_small_patch", "vit_small", "small_patch7"):
        with pytest.raises(AttributeError, match="module 'here' has no attribute"):
            sized("here", wrong, {"small": {"dim": 3}}, dict)  # type: ignore[arg-type]
