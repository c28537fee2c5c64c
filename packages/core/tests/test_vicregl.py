"""VICRegL: places that know where they lie, matches of crops of one image."""

import pytest
import torch

from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.methods.vicregl import VICRegL, places
from ssl_core.objectives import best_matches
from ssl_core.rng import Rng
from ssl_core.testing.vectors import MLPEncoder, NoisyViews
from ssl_core.views import View

RNG = Rng.at(0, 0, torch.arange(2))


def view(boxes, flip=(False, False)):
    data = torch.zeros(2, 1, 8, 8)
    return View(data, RNG, params={"boxes": torch.tensor(boxes), "flip": torch.tensor(flip)})


def test_places_are_the_centres_of_the_cells_in_the_original():
    found = places(view([[10, 20, 4, 8], [0, 0, 2, 2]]), (2, 2))
    assert found[0].tolist() == [[11, 22], [11, 26], [13, 22], [13, 26]]
    assert found[1].tolist() == [[0.5, 0.5], [0.5, 1.5], [1.5, 0.5], [1.5, 1.5]]


def test_a_mirrored_crop_counts_its_columns_backwards():
    boxes = [[0, 0, 4, 4], [0, 0, 4, 4]]
    straight, turned = (places(view(boxes, (f, f)), (2, 2)) for f in (False, True))
    assert torch.equal(turned, straight[:, [1, 0, 3, 2]])


def test_identical_crops_match_each_place_with_itself_and_mirrored_ones_with_its_image():
    boxes = [[3, 5, 9, 9], [1, 1, 6, 6]]
    straight, turned = (places(view(boxes, (f, f)), (3, 3)) for f in (False, True))
    maps = torch.randn(2, 9, 4)
    a, b = best_matches(maps, maps, torch.cdist(straight, straight))
    torch.testing.assert_close(a, b)
    mirrored = maps.reshape(2, 3, 3, 4).flip(2).reshape(2, 9, 4)
    a, b = best_matches(maps, mirrored, torch.cdist(straight, turned))
    torch.testing.assert_close(a, b)


def test_views_without_boxes_and_encoders_without_a_map_are_refused():
    with pytest.raises(UserError, match="boxes"):
        places(View(torch.zeros(2, 3), RNG), (2, 2))
    method = VICRegL(
        MLPEncoder({"dim": 6}), NoisyViews({"dim": 6}), hidden=8, dim=4, local_hidden=8, local_dim=4
    )
    with pytest.raises(UserError, match="feature map"):
        method.encode([View(torch.randn(2, 6), RNG)] * 2)


def test_alpha_of_one_is_another_method():
    with pytest.raises(ValueError, match="vicreg"):
        VICRegL(MLPEncoder({"dim": 6}), NoisyViews({"dim": 6}), alpha=1.0)


class Grid(torch.nn.Module):
    """Pixels as places."""

    embed_dim = 1

    def forward(self, data):
        tokens = data.flatten(2).transpose(1, 2)
        return Features(tokens.mean(1), tokens, tuple(data.shape[2:]))


def test_the_loss_falls_to_its_variance_terms_for_identical_views():
    method = VICRegL(
        Grid(), NoisyViews({"dim": 1}), hidden=4, dim=4, local_hidden=4, local_dim=4, alpha=0.5
    )
    ids = torch.arange(6)
    data = torch.randn(6, 1, 3, 3)
    params = {"boxes": torch.tensor([[0, 0, 3, 3]] * 6), "flip": torch.zeros(6, dtype=torch.bool)}
    same = [View(data, Rng.at(0, 0, ids), params=params)] * 2
    method.variance = method.covariance = 0.0
    assert float(method(same).total.detach()) == pytest.approx(0, abs=1e-8)
    other = View(torch.randn(6, 1, 3, 3), Rng.at(0, 0, ids), params=params)
    assert float(method([same[0], other]).total.detach()) > 0.01
