"""The medical pretexts: released values, structural truths, what is hidden and what is told."""

import math

import pytest
import torch

from reference import assert_gradients, draw, golden, keys
from ssl_core.batch import Batch
from ssl_core.objectives import nt_xent
from ssl_core.rng import Rng
from ssl_medical.blocks import Blocks
from ssl_medical.encoders.create import create_encoder
from ssl_medical.methods.global_local import GlobalLocal, partition_contrast, region_contrast
from ssl_medical.methods.global_local import regions as default_regions
from ssl_medical.methods.models_genesis import ModelsGenesis
from ssl_medical.methods.relative_position import RelativePosition, relative_position
from ssl_medical.methods.swin_unetr import SwinUNETRPretext
from ssl_medical.methods.voco import base_spread, overlap_likeness
from ssl_medical.prepare import SCALE
from ssl_medical.views import paint, policies, pretexts

SPEC = {"channels": 1, "axes": 3, "block": [32, 32, 32], "shape": [32, 32, 32],
        "spacing": [1.0, 1.0, 2.0], "mean": [0.4], "std": [0.3], "draws": False}  # fmt: skip


def batch_of(count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 1, 32, 32, 32)
    data = torch.randint(0, SCALE, shape, generator=generator, dtype=torch.int16)
    zeros = torch.zeros(count, 3, dtype=torch.int64)
    ids = torch.arange(count)
    return Batch(Blocks(data, zeros, zeros + 32), ids, ids)


# Models Genesis


def test_shuffling_permutes_windows_of_the_original() -> None:
    x = torch.arange(40.0 * 30 * 20).view(1, 1, 40, 30, 20).expand(3, 1, -1, -1, -1).contiguous()
    one = paint.shuffled_windows(x, keys(3), windows=1)
    for row in range(3):
        moved = (one[row, 0] != x[row, 0]).nonzero()
        assert torch.equal(one[row].flatten().sort().values, x[row].flatten())
        if len(moved):
            assert ((moved.max(0).values - moved.min(0).values) < torch.tensor([4, 3, 2])).all()
    many = paint.shuffled_windows(x, keys(3), windows=600)
    at = many[0, 0].long()
    away = torch.stack([at // 600 - torch.arange(40)[:, None, None],
                        at // 20 % 30 - torch.arange(30)[None, :, None],
                        at % 20 - torch.arange(20)[None, None]]).abs()  # fmt: skip
    assert (away.amax((1, 2, 3)) < torch.tensor([4, 3, 2])).all(), "nothing leaves its window"
    assert (many != x).float().mean() > 0.1
    assert torch.equal(many[1:], paint.shuffled_windows(x[1:], keys(3)[1:], windows=600))


def test_painting_changes_the_share_that_the_release_does() -> None:
    g = golden("models_genesis/shuffle_paint")
    sides = g["volume"].shape[1:]
    rng = keys(400)
    holes = paint.in_painting(rng, sides)
    around = paint.out_painting(rng, sides)
    assert abs(holes.float().mean() - g["changed_share_in"]) < 0.02
    assert abs(around.float().mean() - g["changed_share_out"]) < 0.02
    for axis, side in enumerate(sides):
        border = torch.arange(side) < 3
        assert not holes.movedim(2 + axis, 0)[border].any(), "boxes stay off the border"
    assert (~around).flatten(1).any(1).all(), "something is always kept"
    assert ((~holes).flatten(1).all(1)).float().mean() < 0.15


def test_restoring_an_untouched_block_asks_for_the_identity() -> None:
    batch = batch_of()
    policy = pretexts.restore(SPEC, size=16, shuffle=0.0, curve=0.0, painting=0.0)
    (view,) = policy(batch, Rng.at(0, 0, batch.ids))
    assert torch.equal(view.data, view.params["target"])
    (view,) = pretexts.restore(SPEC, size=16)(batch, Rng.at(0, 0, batch.ids))
    assert (view.data != view.params["target"]).float().mean() > 0.3
    method = ModelsGenesis(create_encoder("unet_nano", SPEC, widths=(4, 8)), policy)
    method.out.weight.data.zero_()
    method.out.bias.data.fill_(0.25)
    want = (0.25 - view.params["target"]).square().mean()
    torch.testing.assert_close(method([view]).total, want)


# Relative positions


def test_the_variance_of_errors_is_the_mean_over_all_pairs() -> None:
    told, true = draw(2, 7, 3), draw(2, 7, 3, seed=1).detach()
    gap = (told[:, :, None] - told[:, None]) - (true[:, :, None] - true[:, None])
    want = gap.square().mean() / 2
    found = relative_position(told - true)
    torch.testing.assert_close(found, want)
    (slope,) = torch.autograd.grad(want, told)
    assert_gradients(relative_position(told - true), [told], [slope])
    assert relative_position(draw(2, 1, 3).expand(2, 5, 3)) < 1e-12, "a shift of a scan is free"
    collapsed = relative_position(-true)
    torch.testing.assert_close(collapsed, true.var(1, correction=0).mean())


def test_places_are_those_of_the_views_in_the_scan() -> None:
    """A network that tells true places has no error, whatever the crops."""
    batch = batch_of(2)
    policy = policies.pairs(SPEC, size=8, views=2, scale=(0.5, 0.9), angle=20.0)
    method = RelativePosition(create_encoder("unet_nano", SPEC, widths=(4, 8)), policy)
    views = policy(batch, Rng.at(0, 0, batch.ids))
    steps = torch.arange(8) - 3.5
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).flatten(0, 2)
    for view in views:
        want = grid @ view.params["matrix"].mT + view.params["centre"][:, None]
        torch.testing.assert_close(method._place(view) * 32, want)  # half of 32 x 2 mm
    assert not method.batch_coupled
    assert set(method(views).parts) == {"position"}
    both = RelativePosition(method.encoder, policy, contrast=0.5, hidden=16, projection=8)
    loss = both(views)
    assert both.batch_coupled
    torch.testing.assert_close(loss.total.detach(), sum(loss.parts.values()))
    shown = both.shown(views)
    assert [x.shape for x in shown.values()] == [(2, 1, 8, 8, 8)] * 3
    with pytest.raises(ValueError, match="contrast"):
        RelativePosition(method.encoder, policy, contrast=-1.0)


# Swin UNETR


def test_cut_outs_hide_their_share_and_targets_are_whole() -> None:
    hidden = paint.cut_out(keys(200), (32, 32, 32))
    share = hidden.flatten(1).float().mean(1)
    assert share.max() < 0.3 + 0.25**3
    assert 0.15 < share.mean() < 0.3
    batch = batch_of()
    policy = pretexts.cutouts(SPEC, size=16)
    first, second = policy(batch, Rng.at(0, 0, batch.ids))
    for view in (first, second):
        for row, quarters in enumerate(view.params["quarters"].tolist()):
            back = view.params["target"][row].rot90(-quarters, (1, 2))
            other = second.params["target"][row]
            same = other.rot90(-int(second.params["quarters"][row]), (1, 2))
            torch.testing.assert_close(back, same)
        kept = (view.data == view.params["target"]).float().mean()
        assert 0.65 < kept < 0.95


def test_the_three_tasks_can_be_switched() -> None:
    batch = batch_of()
    policy = pretexts.cutouts(SPEC, size=16)
    views = policy(batch, Rng.at(0, 0, batch.ids))
    for only in ("rotation", "contrast", "inpainting"):
        torch.manual_seed(0)
        off = {name: 0.0 for name in ("rotation", "contrast", "inpainting") if name != only}
        encoder = create_encoder("unet_nano", SPEC, widths=(4, 8))
        method = SwinUNETRPretext(encoder, policy, dim=8, **off)
        loss = method(views)
        torch.testing.assert_close(loss.total.detach(), loss.parts[only])
        assert loss.parts[only] > 0


# Global and local contrast


def test_global_losses_are_the_released_ones() -> None:
    g = golden("global_local/global_losses")
    z = g["exp1_z"].requires_grad_()
    loss = partition_contrast(z.view(3, 4, -1), torch.arange(4))
    torch.testing.assert_close(loss, g["exp1_loss"], rtol=0, atol=1e-8)
    (got,) = torch.autograd.grad(loss, [z])
    torch.testing.assert_close(got, g["exp1_grad"], rtol=0, atol=1e-8)
    z = g["exp2_z"].requires_grad_()
    # Blocks: scan 1, its altered version, scan 2, its altered version; four partitions each.
    rows = z.view(2, 2, 4, -1).transpose(0, 1).flatten(1, 2)
    loss = partition_contrast(rows, torch.arange(4).repeat(2), positives="partitions")
    # The release walks every pair twice.
    torch.testing.assert_close(2 * loss, g["exp2_loss"], rtol=0, atol=1e-8)
    (got,) = torch.autograd.grad(2 * loss, [z])
    torch.testing.assert_close(got, g["exp2_grad"], rtol=0, atol=1e-8)


def test_partitions_decide_the_negatives() -> None:
    z = draw(2, 6, 5)
    alone = partition_contrast(z, torch.zeros(6, dtype=torch.int64))
    assert alone == 0, "one partition: no negatives"
    apart = partition_contrast(z, torch.arange(6))
    torch.testing.assert_close(apart, nt_xent(z[0], z[1], temperature=0.1))
    g = golden("global_local/global_losses")
    torch.testing.assert_close(
        partition_contrast(g["gr_z"].view(2, 4, -1), torch.arange(4)), g["gr_loss"],
        rtol=0, atol=1e-8,
    )  # fmt: skip


def test_local_loss_is_the_released_one() -> None:
    g = golden("global_local/local_loss")
    maps = g["feature_map"].requires_grad_()
    a, b = maps.permute(0, 3, 1, 2)[0::2], maps.permute(0, 3, 1, 2)[1::2]
    positive, negative = g["positive_regions"].long(), g["negative_regions"].long()
    loss = region_contrast(a, b, positive=positive, negative=negative)
    torch.testing.assert_close(loss, g["loss"], rtol=0, atol=1e-8)
    assert_gradients(loss, [maps], [g["grad"]])
    ours, near = default_regions((20, 20), torch.device("cpu"))
    assert {tuple(r) for r in (ours // 4).tolist()} == {tuple(r) for r in (positive // 4).tolist()}
    assert near.shape == (13, 5, 2)


def test_the_local_stage_leaves_the_encoder_alone() -> None:
    batch = batch_of()
    policy = pretexts.slices(SPEC, size=16)
    encoder = create_encoder("unet_nano", SPEC, widths=(4, 8), axes=2)
    method = GlobalLocal(encoder, policy, stage="local", local_dim=4)
    method(policy(batch, Rng.at(0, 0, batch.ids))).total.backward()
    assert all(p.grad is None for p in encoder.down.parameters())
    assert all(p.grad is not None for p in encoder.up.parameters())


def test_slices_tell_their_partition_and_their_place() -> None:
    depth = torch.arange(32, dtype=torch.int16) * 1000
    data = depth.expand(16, 1, 32, 32, 32).contiguous()
    corner = torch.zeros(16, 3, dtype=torch.int64)
    corner[:, 2] = 32
    ids = torch.arange(16)
    batch = Batch(Blocks(data, corner, torch.full((16, 3), 128)), ids, ids)
    policy = pretexts.slices(SPEC, size=8, partitions=4)
    views = policy(batch, Rng.at(0, 0, ids))
    level = (views[0].data.mean((1, 2, 3)) * 0.3 + 0.4) * SCALE / 1000
    want = ((32 + level.round() + 0.5) / 128 * 4).floor().long()
    assert torch.equal(views[0].params["partition"], want)
    assert views[0].data.shape == (16, 1, 8, 8)
    assert len(views) == 3


# VoCo


def test_bases_tile_the_block_and_overlaps_sum_to_one() -> None:
    batch = batch_of(20)
    policy = pretexts.voco(SPEC, size=8, grid=(4, 4, 1), targets=2)
    views = policy(batch, Rng.at(0, 0, batch.ids))
    bases = [view for view in views if view.role == "base"]
    targets = [view for view in views if view.role == "target"]
    assert (len(bases), len(targets)) == (16, 2)
    for view in targets:
        share = view.params["overlap"]
        torch.testing.assert_close(share.sum(1), torch.ones(20))
        inside = bases[0].params["matrix"] @ torch.full((3,), 8.0)
        for n, base in enumerate(bases):
            gap = (base.params["centre"] - view.params["centre"]).abs() / inside
            torch.testing.assert_close(
                share[:, n], (1 - gap).clamp(min=0).prod(1), atol=1e-5, rtol=0
            )


def test_likeness_and_spread_have_their_closed_forms() -> None:
    base = torch.eye(4, dtype=torch.float64)[None, :3].requires_grad_()
    onto = torch.eye(3, dtype=torch.float64)[None]
    positive, negative = overlap_likeness(base.detach(), base, onto)
    assert positive < 1e-6, "target j is base j"
    assert negative == 0
    assert base_spread(base) == 0
    half = torch.full((1, 1, 3), 1 / 3, dtype=torch.float64)
    away = torch.tensor([[[0.0, 0, 0, 1]]], dtype=torch.float64)
    positive, negative = overlap_likeness(away, base, half)
    torch.testing.assert_close(positive.item(), -math.log(2 / 3))
    z = draw(1, 3, 4)
    (gradient,) = torch.autograd.grad(base_spread(z), [z])
    assert (gradient[0, 2] == 0).all(), "only the earlier of a pair moves"


@pytest.mark.parametrize("name", ["restore", "cutouts", "slices", "voco"])
def test_pretext_views_depend_on_the_sample_alone(name) -> None:
    batch = batch_of()
    policy = getattr(pretexts, name)(SPEC, size=8)
    whole = policy(batch, Rng.at(0, 0, batch.ids))
    data = batch.data
    tail = Batch(
        Blocks(data.data[2:], data.corner[2:], data.shape[2:]), batch.ids[2:], batch.ids[2:]
    )
    for a, b in zip(whole, policy(tail, Rng.at(0, 0, tail.ids)), strict=True):
        assert torch.equal(a.data[2:], b.data)
        for key, value in a.params.items():
            assert torch.equal(value[2:], b.params[key]), key
