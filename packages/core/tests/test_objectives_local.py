"""VICReg between matched places."""

import pytest
import torch

from reference import assert_gradients, draw
from ssl_core.objectives import best_matches, vicreg, vicregl
from ssl_core.objectives.local_matches import vicregl_local


def centres(rows: int, mirrored: bool = False) -> torch.Tensor:
    """Grid centres of a 3 x 3 map for each sample, `[rows, 9, 2]`."""
    line = torch.linspace(0.1, 0.9, 3, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line.flip(0) if mirrored else line)
    return grid.expand(rows, 9, 2)


def test_matches_are_the_nearest_places_best_first():
    a, b = draw(2, 5, 3).detach(), draw(2, 7, 3, seed=1).detach()
    distance = torch.cdist(a, b)
    kept, found = best_matches(a, b, distance, count=3)
    for n in range(2):
        order = sorted(range(5), key=lambda i, n=n: distance[n, i].min().item())[:3]
        for slot, i in enumerate(order):
            assert torch.equal(kept[n, slot], a[n, i])
            assert torch.equal(found[n, slot], b[n, distance[n, i].argmin()])
    assert best_matches(a, b, distance)[0].shape == (2, 5, 3)


def test_equal_crops_match_themselves_and_mirrored_ones_their_mirror():
    maps = draw(4, 9, 5).detach()
    kept, found = best_matches(maps, maps, torch.cdist(centres(4), centres(4)))
    assert torch.equal(kept, found)
    mirror = torch.tensor([2, 1, 0, 5, 4, 3, 8, 7, 6])
    distance = torch.cdist(centres(4), centres(4, mirrored=True))
    kept, found = best_matches(maps, maps[:, mirror], distance)
    assert torch.equal(kept, found)


def test_local_terms_are_vicreg_of_each_slot():
    a, b = draw(6, 9, 4), draw(6, 9, 4, seed=1)
    where = centres(6)
    got = vicregl_local(a, b, where, where, matches=(9, 9))
    terms = []
    for distance in (torch.cdist(a, b), torch.cdist(where, where)):
        for x, y, d in ((a, b, distance), (b, a, distance.mT)):
            kept, found = best_matches(x, y, d.detach())
            slots = [vicreg(kept[:, s], found[:, s], covariance=0.5) for s in range(9)]
            terms.append(torch.stack(slots).mean())
    want = torch.stack(terms).sum() / 2
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert_gradients(got, [a, b], list(torch.autograd.grad(want, [a, b])))


def test_alpha_one_is_vicreg_with_half_its_covariance():
    z = [draw(8, 5, seed=s) for s in range(2)]
    got = vicregl(z, [], [], alpha=1.0)
    torch.testing.assert_close(got, vicreg(*z, covariance=0.5), rtol=1e-12, atol=0)


def test_collapsed_value():
    flat, maps = torch.ones(4, 5, dtype=torch.float64), torch.ones(4, 9, 5, dtype=torch.float64)
    loss = vicregl([flat] * 2, [maps] * 2, [centres(4)] * 2)
    # Features and positions each add a VICReg of 24.75 to the local part.
    assert loss.item() == pytest.approx(0.75 * 24.75 + 0.25 * 2 * 24.75)
