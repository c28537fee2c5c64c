"""Views of volumes: exact where geometry is exact, MONAI's values, provenance in millimetres."""

import monai.transforms as mt
import pytest
import torch

from reference import draw, golden, keys
from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_medical.blocks import Blocks
from ssl_medical.prepare import SCALE
from ssl_medical.views import elastic, policies
from ssl_medical.views.intensity import (
    Intensity,
    add_noise,
    adjust_gamma,
    bezier,
    bias_field,
    blur,
    exponents,
    scale_contrast,
)
from ssl_medical.views.space import Placement, RandomPlacement, overlap, quarter, sampled

SPEC = {"channels": 1, "axes": 3, "block": [16, 12, 8], "shape": [40, 30, 20],
        "spacing": [1.0, 2.0, 4.0], "mean": [0.25], "std": [0.5], "draws": True}  # fmt: skip


def batch_of(count: int = 3, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, SCALE, (count, 1, 16, 12, 8), generator=generator, dtype=torch.int16)
    ids = torch.arange(count)
    corner = torch.stack([ids * 3, ids, ids * 2], 1)
    return Batch(Blocks(data, corner, torch.tensor(SPEC["shape"]).expand(count, 3)), ids, ids)


def exact(matrix: torch.Tensor, sides) -> Placement:
    count = len(matrix)
    return Placement(torch.tensor([s / 2 for s in sides]).expand(count, -1), matrix)


def test_identity_flips_and_turns_are_exact() -> None:
    x = draw(4, 2, 6, 6, 5).detach().float()
    sides = (6, 6, 5)
    same = torch.eye(3).expand(4, 3, 3)
    torch.testing.assert_close(sampled(x, exact(same, sides), sides), x, rtol=0, atol=2e-6)
    mirrored = sampled(
        x, exact(torch.diag(torch.tensor([1.0, -1, -1])).expand(4, 3, 3), sides), sides
    )
    torch.testing.assert_close(mirrored, x.flip(3, 4), rtol=0, atol=2e-6)
    turned = sampled(x, exact(quarter(torch.arange(4), 3), sides), sides)
    for count in range(4):
        want = x[count].rot90(-count, (1, 2))
        torch.testing.assert_close(turned[count], want, rtol=0, atol=2e-6)
    flat = draw(4, 1, 5, 5).detach().float()
    got = sampled(flat, exact(quarter(torch.arange(4), 2), (5, 5)), (5, 5))
    torch.testing.assert_close(got[1], flat[1].rot90(-1, (1, 2)), rtol=0, atol=2e-6)


def test_sampling_by_slabs_is_torchs_trilinear() -> None:
    x = draw(5, 2, 11, 9, 13).detach().float()
    place = RandomPlacement((0.5, 1.0), angle=60.0, flips=(0.5, 0.5, 0.5), turns=0.5).sample(
        keys(5), (11, 9, 13), (6, 8, 7), (1.0, 1.3, 0.8)
    )
    far = Placement(place.centre + torch.tensor([6.0, -5.0, 9.0]), place.matrix * 1.7)
    for where in (place, far):
        # In float64 torch's own kernel for volumes is used.
        exactly = Placement(where.centre.double(), where.matrix.double())
        want = sampled(x.double(), exactly, (6, 8, 7)).float()
        torch.testing.assert_close(sampled(x, where, (6, 8, 7)), want, rtol=0, atol=1e-4)
        assert torch.equal(
            sampled(x[2:3], where.rows(slice(2, 3)), (6, 8, 7)), sampled(x, where, (6, 8, 7))[2:3]
        )
    assert (sampled(x, far, (6, 8, 7)) == 0).float().mean() > 0.2


def test_a_placement_is_monais_affine() -> None:
    x = draw(3, 1, 12, 10, 9).detach().float()
    sides = (7, 8, 6)
    place = RandomPlacement((0.5, 1.0), angle=35.0, flips=(0.5, 0.5, 0.5), turns=0.5).sample(
        keys(3), (12, 10, 9), sides, (1.0, 1.5, 0.7)
    )
    found = sampled(x, place, sides)
    for row in range(3):
        affine = torch.eye(4)
        affine[:3, :3] = place.matrix[row]
        affine[:3, 3] = place.centre[row] - torch.tensor([6.0, 5.0, 4.5])
        monai = mt.Affine(affine=affine, spatial_size=sides, padding_mode="zeros", image_only=True)
        want = torch.as_tensor(monai(x[row]))
        torch.testing.assert_close(found[row], want, rtol=0, atol=1e-4)
    stored = (x * 1000).to(torch.int16)
    torch.testing.assert_close(sampled(stored, place, sides), sampled(stored.float(), place, sides))
    square = sampled(x[:1, :, :10], exact(quarter(torch.tensor([3]), 3), (10, 10, 9)), (10, 10, 9))
    want = torch.as_tensor(mt.Rotate90(k=1, spatial_axes=(0, 1))(x[0, :, :10]))
    torch.testing.assert_close(square[0], want, rtol=0, atol=1e-4)


def test_elastic_fields_are_splines_and_vanish_at_zero() -> None:
    x = draw(3, 1, 12, 12, 12).detach().float()
    sides, spacing = (8, 8, 8), (1.0, 1.0, 1.0)
    plain, bent = (
        RandomPlacement((0.6, 0.9), elastic=most).sample(keys(3), (12, 12, 12), sides, spacing)
        for most in (0.0, 0.4)
    )
    assert torch.equal(plain.matrix, bent.matrix)
    still = Placement(bent.centre, bent.matrix, torch.zeros_like(bent.bend))
    assert torch.equal(sampled(x, still, sides), sampled(x, plain, sides))
    moved = sampled(x, bent, sides)
    assert (moved - sampled(x, plain, sides)).abs().mean() > 0.01
    assert torch.equal(sampled(x[1:2], bent.rows(slice(1, 2)), sides), moved[1:2])
    exactly = Placement(*(part.double() for part in (bent.centre, bent.matrix, bent.bend)))
    want = sampled(x.double(), exactly, sides).float()
    torch.testing.assert_close(moved, want, rtol=0, atol=1e-4)
    # Splines reproduce lines: points moved in proportion to their place stretch the view.
    at = (torch.arange(7.0) - 3) / elastic.CELLS  # shares of the view from its middle
    line = at.view(1, 1, 7, 1, 1).expand(1, 1, 7, 7, 7)
    (found,) = elastic.field(line, (8, 6, 5))
    want = ((torch.arange(8) + 0.5) / 8 - 0.5).view(1, 8, 1, 1).expand(1, 8, 6, 5)
    torch.testing.assert_close(found, want)
    low, high = torch.eye(3), bent.bend.abs().amax((2, 3, 4))
    extent = torch.linalg.vector_norm(bent.matrix @ low, dim=1) * 8
    assert (high <= 0.4 * extent / elastic.CELLS + 1e-5).all()
    with pytest.raises(ValueError, match="space folds"):
        policies.pairs(SPEC, elastic=0.5)


def test_rows_at_a_time_change_nothing(monkeypatch) -> None:
    batch = batch_of(5)
    policy = policies.pairs(SPEC, size=4, elastic=0.3)
    whole = policy(batch, Rng.at(0, 0, batch.ids))
    monkeypatch.setattr(policies, "_AT_ONCE", 2 * 16 * 12 * 8)
    for one, other in zip(whole, policy(batch, Rng.at(0, 0, batch.ids)), strict=True):
        assert torch.equal(one.data, other.data)


def test_a_view_lies_where_its_provenance_says() -> None:
    """A block that holds its own coordinates in mm: the view must read what params claim."""
    batch = batch_of()
    step = torch.tensor(SPEC["spacing"])
    sides = (8, 6, 4)
    for axis in range(3):
        index = torch.arange(SPEC["block"][axis]).view([-1 if a == axis else 1 for a in range(3)])
        own = (index + batch.data.corner[:, axis].view(-1, 1, 1, 1) + 0.5) * step[axis]
        x = own.expand(3, *SPEC["block"]).unsqueeze(1).float()
        place = RandomPlacement((0.4, 0.6), angle=5.0).sample(
            keys(3), SPEC["block"], sides, SPEC["spacing"]
        )
        seen = sampled(x, place, sides)[:, 0]
        told = place.millimetres(batch.data.corner, SPEC["spacing"])
        steps = [torch.arange(n) + 0.5 - n / 2 for n in sides]
        u = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
        want = torch.einsum("bj,xyzj->bxyz", told["matrix"][:, axis], u)
        want = want + told["centre"][:, axis].view(-1, 1, 1, 1)
        inside = (slice(None), slice(2, 6), slice(2, 4), slice(1, 3))
        torch.testing.assert_close(seen[inside], want[inside], rtol=1e-4, atol=1e-3)


def test_rotations_are_rigid_in_millimetres() -> None:
    place = RandomPlacement((1.0, 1.0), angle=40.0).sample(
        keys(5), (16, 16, 16), (16, 16, 16), (1.0, 2.0, 4.0)
    )
    step = torch.tensor([1.0, 2.0, 4.0])
    rigid = step[:, None] * place.matrix / step[None]
    torch.testing.assert_close(
        rigid @ rigid.transpose(1, 2), torch.eye(3).expand(5, 3, 3), rtol=0, atol=1e-5
    )


def test_overlap_is_at_least_what_was_asked_for() -> None:
    batch = batch_of(64)
    batch = Batch(batch.data, batch.ids, batch.index)
    policy = policies.pairs(SPEC, size=4, overlap=0.5, scale=(0.5, 0.5), angle=0.0)
    first, second = policy(batch, Rng.at(0, 0, batch.ids))
    share = overlap(first.params, second.params, (4, 4, 4))
    assert share.min() >= 0.5**3 - 1e-4
    assert share.max() <= 1
    assert share.std() > 0.05
    same = overlap(first.params, first.params, (4, 4, 4))
    torch.testing.assert_close(same, torch.ones(64))
    away = dict(first.params) | {"centre": first.params["centre"] + 1000}
    assert (overlap(first.params, away, (4, 4, 4)) == 0).all()


def test_intensities_equal_monai() -> None:
    x = draw(3, 1, 7, 6, 5).detach().float().abs()
    gamma = torch.tensor([0.7, 1.0, 1.8])
    got = adjust_gamma(x, gamma)
    for row in range(3):
        want = mt.AdjustContrast(gamma=gamma[row].item())(x[row])
        torch.testing.assert_close(got[row], torch.as_tensor(want), rtol=1e-4, atol=1e-5)
    assert torch.equal(got[1], x[1])
    sigma = torch.tensor([0.0, 0.6, 0.9])
    soft = blur(x, sigma)
    assert torch.equal(soft[0], x[0])
    for row in (1, 2):
        want = mt.GaussianSmooth(sigma=sigma[row].item(), approx="sampled")(x[row])
        inside = (slice(None), slice(3, 4), slice(3, 3), slice(2, 3))
        torch.testing.assert_close(
            soft[row][inside], torch.as_tensor(want)[inside], atol=1e-3, rtol=1e-2
        )
    flat = torch.full((2, 1, 9, 9), 3.0)
    torch.testing.assert_close(blur(flat, torch.tensor([0.5, 2.0])), flat)


def test_bias_field_is_monais_polynomial() -> None:
    coefficients = draw(1, len(exponents(3, 3)), seed=4).detach() * 0.1
    x = torch.ones(1, 1, 6, 5, 4, dtype=torch.float64)
    got = bias_field(x, coefficients)[0, 0]
    monai = mt.RandBiasField(degree=3, prob=1.0)
    want = monai._generate_random_field((6, 5, 4), 3, coefficients[0].tolist())
    torch.testing.assert_close(got.log(), torch.as_tensor(want), rtol=1e-6, atol=1e-7)
    assert torch.equal(bias_field(x, coefficients * 0), x)


def test_contrast_and_noise_have_their_moments() -> None:
    x = draw(2, 1, 20, 20, 20).detach()
    changed = scale_contrast(x, torch.tensor([2.0, 1.0]), torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(changed[0].std(), 2 * x[0].std())
    torch.testing.assert_close(changed[0].mean(), x[0].mean() + 0.5)
    torch.testing.assert_close(changed[1], x[1])
    noisy = add_noise(x, torch.tensor([0.0, 0.3]), keys(2))
    assert torch.equal(noisy[0], x[0])
    assert abs((noisy[1] - x[1]).std() - 0.3) < 0.01


def test_bezier_maps_are_those_of_models_genesis() -> None:
    g = golden("models_genesis/bezier_intensity")
    for case in "abcde":
        control, branch = g[f"control_{case}"][None], g[f"branch_draw_{case}"] < 0.5
        got = bezier(g["x"][None], control, branch[None], points=20_000)
        torch.testing.assert_close(got[0], g[f"y_{case}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["pairs", "dino", "mae", "weak", "none"])
def test_policies_are_keyed_by_sample_and_normalise(name) -> None:
    spec = SPEC | {"block": [16, 16, 16]}
    generator = torch.Generator().manual_seed(1)
    data = torch.randint(0, SCALE, (4, 1, 16, 16, 16), generator=generator, dtype=torch.int16)
    ids = torch.arange(4)

    def batch(rows) -> Batch:
        own = torch.tensor(rows)
        zeros = torch.zeros(len(rows), 3, dtype=torch.int64)
        return Batch(Blocks(data[own], zeros, zeros + 16), ids[own], ids[own])

    policy = getattr(policies, name)(spec, size=8)
    whole, part = (policy(b, Rng.at(0, 1, b.ids)) for b in (batch([0, 1, 2, 3]), batch([2, 3])))
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a.data[2:], b.data)
    assert policy.plain(batch([0])).shape == (1, 1, 8, 8, 8)
    assert policy.spec["view_sides"] == [8, 8, 8]
    full = policies.none(spec).plain(batch([1]))
    torch.testing.assert_close(full, (data[1:2] / SCALE - 0.25) / 0.5)


def test_slices_make_views_of_two_axes() -> None:
    spec = SPEC | {"axes": 2, "block": [16, 12, 1]}
    data = torch.randint(0, SCALE, (2, 1, 16, 12, 1), dtype=torch.int16)
    zeros = torch.zeros(2, 3, dtype=torch.int64)
    batch = Batch(Blocks(data, zeros, zeros + 16), torch.arange(2), torch.arange(2))
    views = policies.pairs(spec, size=8)(batch, Rng.at(0, 0, batch.ids))
    assert [view.data.shape for view in views] == [(2, 1, 8, 8)] * 2


def test_wrong_options_are_named() -> None:
    from ssl_core.errors import UserError

    with pytest.raises(UserError, match="did you mean 'gamma'"):
        policies.pairs(SPEC, gama=0.3)
    with pytest.raises(ValueError, match="overlap"):
        policies.pairs(SPEC, overlap=1.0)
    with pytest.raises(ValueError, match="size"):
        policies.pairs(SPEC, size=2)
    with pytest.raises(ValueError, match="probability"):
        Intensity(noise=2.0)
