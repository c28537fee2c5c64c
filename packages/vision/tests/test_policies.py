"""View policies: shapes, roles, provenance, and the same pixels in any split of a batch."""

import random

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.registry import Registry
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_vision.views import VIEWS

REGISTRY = Registry("views", VIEWS)
IMAGES = sorted(set(VIEWS) - {"captioned"})


def facts(channels: int = 3, size: int = 32) -> dict:
    mean, std = [0.4, 0.5, 0.3][:channels], [0.2, 0.25, 0.3][:channels]
    return {"channels": channels, "size": size, "range": [0, 255], "mean": mean, "std": std}


def batch(n: int, channels: int = 3, height: int = 40, width: int = 46) -> Batch:
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.integers(0, 256, (n, channels, 8, 9), np.uint8))
    data = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    index = torch.arange(n)
    return Batch(data.contiguous(memory_format=torch.channels_last), index + 50, index)


def rows(whole: Batch, index: list[int]) -> Batch:
    picked = torch.tensor(index)
    data = whole.data
    data = data[picked] if isinstance(data, torch.Tensor) else [data[i] for i in index]
    return Batch(data, whole.ids[picked], whole.index[picked])


def views(name: str, given: Batch, *, spec: dict | None = None, **options) -> list[View]:
    policy = REGISTRY.build(name, spec or facts(), options=options)
    return policy(given, Rng.at(1, 7, given.ids))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("ragged", [False, True])
def test_any_split_of_a_batch_gives_the_same_bits(name: str, ragged: bool) -> None:
    whole = batch(23)
    if ragged:
        data = [image[:, : 20 + i, : 46 - i] for i, image in enumerate(whole.data)]
        whole = Batch(data, whole.ids, whole.index)
    # Blur is on, so that every operation is in the chain.
    options = {"simclr": {"blur": 0.5}, "byol": {"blur": (1.0, 0.1)}, "dino": {"blur": (1, 0.1, 1)}}
    made = views(name, whole, **options.get(name, {}))
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0)).tolist()
    for part in (order[:1], order[1:9], order[9:]):
        for all_of_it, some in zip(
            made, views(name, rows(whole, part), **options.get(name, {})), strict=True
        ):
            assert torch.equal(all_of_it.data[part], some.data)
            assert torch.equal(all_of_it.rng.key[part], some.rng.key)
            for field, value in some.params.items():
                assert torch.equal(all_of_it.params[field][part], value)


@pytest.mark.parametrize("name", IMAGES)
def test_no_global_random_state_is_used(name: str) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the very state that must not move
    random.seed(5)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    views(name, batch(5))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()


def test_views_differ_between_steps_and_samples_and_views() -> None:
    one = batch(1)
    same = Batch(one.data.expand(4, -1, -1, -1), torch.arange(4), torch.arange(4))
    first, second = views("simclr", same)
    policy = REGISTRY.build("simclr", facts(), options={})
    later = policy(same, Rng.at(1, 8, same.ids))[0]
    every = torch.cat([first.data, second.data, later.data]).flatten(1)
    assert (torch.cdist(every, every) + torch.eye(12) * 99 > 1).all()


def test_shapes_and_roles() -> None:
    given = batch(3)
    expected = {
        "simclr": 2,
        "byol": 2,
        "dino": 10,
        "ressl": 2,
        "pirl": 2,
        "weak": 2,
        "mae": 1,
        "none": 1,
    }
    assert sorted(expected) == IMAGES
    for name, count in expected.items():
        made = views(name, given)
        assert len(made) == count
        sizes = [32, 36] if name == "pirl" else [32, 32] + [16] * 8
        for view, size in zip(made, sizes, strict=False):
            assert view.data.shape == (3, 3, size, size)
            assert view.data.dtype == torch.float32
            assert view.role == {32: "global", 36: "puzzle", 16: "local"}[size]
            assert all(len(value) == 3 for value in view.params.values())
    assert len(views("simclr", given, views=4)) == 4
    crops = views("dino", given, size=24, local_size=8, global_views=3, local_views=1)
    assert [view.data.shape[-1] for view in crops] == [24, 24, 24, 8]


def test_the_first_view_of_ressl_keeps_its_colours() -> None:
    gentle, *strong = REGISTRY.build("ressl", facts(), options={"strong_views": 2}).views
    assert gentle.jitter.p == gentle.grey.p == 0
    assert [view.jitter.p for view in strong] == [0.8, 0.8]


def test_default_local_crops_are_the_papers() -> None:
    policy = REGISTRY.build("dino", facts(size=224), options={})
    assert [view.size for view in policy.views] == [224] * 2 + [96] * 8
    assert [view.blur.p for view in policy.views] == [1.0, 0.1] + [0.5] * 8
    assert [view.solarise.p for view in policy.views] == [0.0, 0.2] + [0.0] * 8
    simclr = REGISTRY.build("simclr", facts(size=224), options={}).views[0]
    assert (simclr.blur.kernel, simclr.blur.p, simclr.jitter.hue) == (23, 0.5, 0.2)
    small = REGISTRY.build("simclr", facts(size=32), options={}).views[0]
    assert (small.blur.p, small.jitter.brightness) == (0.0, 0.4)


def test_whole_chain_equals_torchvision_on_the_drawn_parameters() -> None:
    """Crop in bytes, then every operation of torchvision's v2 on floats, per sample."""
    given, spec = batch(40), facts()
    for view in views("byol", given, spec=spec, blur=(1.0, 0.5), solarise=(0.3, 0.5)):
        p = view.params
        ops = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
        for i in range(40):
            x = tv.resized_crop(
                given.data[i], *p["boxes"][i].tolist(), [32, 32], tv.InterpolationMode.BICUBIC
            )
            x = tv.horizontal_flip(x) if p["flip"][i] else x
            x = tv.to_dtype(x, torch.float32, scale=True)
            for op in p["jitter_order"][i].tolist() if p["jittered"][i] else []:
                x = ops[op](x, float(p["jitter_factors"][i, op]))
            x = tv.rgb_to_grayscale(x, num_output_channels=3) if p["grey"][i] else x
            if p["blur_sigma"][i]:
                x = tv.gaussian_blur(x, [3, 3], [float(p["blur_sigma"][i])] * 2)
            if p["solarise"][i]:
                # A value within rounding of the threshold may fall on either side of it.
                edge = (x - 0.5).abs() < 1e-5
                x = torch.where(edge, torch.nan, tv.solarize(x, 0.5))
            x = tv.normalize(x, spec["mean"], spec["std"])
            error = (view.data[i] - x).abs() * torch.tensor(spec["std"])[:, None, None]
            assert error[~error.isnan()].max() <= 0.01 / 255
            assert error.isnan().float().mean() < 0.01


def test_identity_settings_give_the_plain_view() -> None:
    given = batch(6, height=40, width=40)
    for name in ("simclr", "byol"):
        off = {"scale": (1, 1), "flip": 0, "jitter": 0, "grey": 0, "interpolation": "bilinear"}
        off |= {"solarise": (0, 0)} if name == "byol" else {}
        policy = REGISTRY.build(name, facts(), options=off)
        for view in policy(given, Rng.at(0, 0, given.ids)):
            assert torch.equal(view.data, policy.plain(given))
    none = REGISTRY.build("none", facts(), options={})
    assert torch.equal(none(given, Rng.at(0, 0, given.ids))[0].data, none.plain(given))


def test_plain_view_is_the_centre() -> None:
    given = batch(2, height=30, width=50)
    plain = REGISTRY.build("none", facts(size=30), options={}).plain(given)
    spec = facts()
    pixels = given.data[:, :, :, 10:40].to(torch.float32) / 255
    assert torch.allclose(plain, tv.normalize(pixels, spec["mean"], spec["std"]), atol=1e-6)
    large = REGISTRY.build("none", facts(size=224), options={})
    assert large.plain_fraction == 0.875


@pytest.mark.parametrize("channels", [1, 2])
def test_other_channel_counts(channels: int) -> None:
    given = batch(6, channels)
    for name in IMAGES:
        for view in views(name, given, spec=facts(channels)):
            assert view.data.shape[1] == channels
            assert torch.isfinite(view.data).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("simclr", {"size": "big"}, "size must be"),
        ("simclr", {"scale": (0.5,)}, "scale must be two"),
        ("simclr", {"strenght": 1}, "did you mean 'strength'"),
        ("dino", {"blur": (1, 2)}, "three probabilities"),
        ("dino", {"global_views": 0}, "global_views=0"),
        ("simclr", {"views": 0}, "views must be"),
        ("byol", {"interpolation": "cubic"}, "interpolation"),
        ("byol", {"flip": 1.5}, "probability"),
    ],
)
def test_wrong_options_are_user_errors(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        REGISTRY.build(name, facts(), options=options)


@pytest.mark.parametrize("ragged", [False, True])
def test_views_of_one_kind_made_together_are_those_made_alone(ragged: bool) -> None:
    given = batch(5)
    if ragged:
        data = [image[:, : 30 + i] for i, image in enumerate(given.data)]
        given = Batch(data, given.ids, given.index)
    policy = REGISTRY.build("dino", facts(), options={"local_views": 3, "local_size": 16})
    rng = Rng.at(1, 7, given.ids)
    for v, (made, view) in enumerate(zip(policy.views, policy(given, rng), strict=True)):
        alone = made(given, rng.fold("view", v))
        assert view.role == alone.role
        assert torch.equal(view.data, alone.data)
        assert torch.equal(view.rng.key, alone.rng.key)
        assert all(torch.equal(view.params[name], alone.params[name]) for name in alone.params)
