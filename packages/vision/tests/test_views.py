"""Every image operation against torchvision's v2 functionals, on the same parameters."""

from unittest import mock

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from ssl_core import rng as rng_module
from ssl_core.batch import Batch
from ssl_core.ops import rows
from ssl_core.ops.blur import GaussianBlur
from ssl_core.ops.colour import (
    ColourJitter,
    Grey,
    JitterParams,
    Normalise,
    Solarise,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from ssl_core.ops.geometry import HorizontalFlip, RandomResizedCrop
from ssl_core.ops.pipeline import Augmentation
from ssl_core.ops.pixels import (
    _batched,
    antialias_weights,
    centre_boxes,
    crop_resize,
    image_sizes,
)
from ssl_core.rng import Rng

TOLERANCE = 0.01 / 255


def keys(n: int, seed: int = 0) -> Rng:
    return Rng.at(seed, 0, torch.arange(n))


def images(n: int, channels: int = 3, height: int = 40, width: int = 48) -> torch.Tensor:
    """Smooth and rough content, saturated pixels, greys and exact ties of channels."""
    rng = np.random.default_rng(n * 7 + channels)
    x = torch.from_numpy(rng.random((n, channels, height, width), dtype=np.float32))
    x[: n // 2] = torch.nn.functional.avg_pool2d(x[: n // 2], 5, 1, 2)
    x[0] = x[0].mul(4).round().div(4)
    x[1, :, :9] = x[1, :1, :9]
    x[2, :, :5] = 0
    x[2, :, 5:9] = 1
    return x


def stored(n: int, height: int = 61, width: int = 47) -> torch.Tensor:
    x = (images(n, 3, height, width) * 255).round().to(torch.uint8)
    return x.contiguous(memory_format=torch.channels_last)


# --- crop ---------------------------------------------------------------------------------------


@pytest.fixture(params=["compiled loops", "torch's kernels"])
def _each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "compiled loops":
        pytest.importorskip("numba")
    else:
        monkeypatch.setenv("SSL_COMPILED", "0")


each_way = pytest.mark.usefixtures("_each_way")


@each_way
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(16, 16), (33, 20), (96, 96)])
def test_crop_of_bytes_equals_resized_crop(interpolation: str, size: tuple[int, int]) -> None:
    data = stored(12)
    boxes = RandomResizedCrop((0.05, 1.0)).sample(keys(12), image_sizes(data))
    ours = crop_resize(data, boxes, size, value_range=(0, 255), interpolation=interpolation)
    mode = v2.InterpolationMode(interpolation)
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        theirs = tv.resized_crop(data[i], top, left, height, width, list(size), mode)
        assert torch.equal((ours[i] * 255).round(), theirs.float())


@each_way
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_of_floats_equals_resized_crop(interpolation: str) -> None:
    data = images(8)
    boxes = RandomResizedCrop((0.1, 1.0)).sample(keys(8), image_sizes(data))
    ours = crop_resize(data, boxes, (24, 24), value_range=(0, 1), interpolation=interpolation)
    mode = v2.InterpolationMode(interpolation)
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        theirs = tv.resized_crop(data[i], top, left, height, width, [24, 24], mode)
        assert (ours[i] - theirs).abs().max() <= TOLERANCE


@each_way
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_matrix_form_equals_the_kernel(interpolation: str, dtype: torch.dtype) -> None:
    """The form used on accelerators; bytes may round the other way on exact halves."""
    data = images(8) if dtype == torch.float32 else stored(8)
    boxes = RandomResizedCrop((0.05, 1.0)).sample(keys(8), image_sizes(data))
    flip = HorizontalFlip().sample(keys(8))
    rows = [5, 2, 7, 0]
    options = {"interpolation": interpolation, "flip": flip}
    high = 1.0 if dtype == torch.float32 else 255.0
    kernel = crop_resize(data, boxes, (24, 30), value_range=(0, high), rows=rows, **options)
    matrix = _batched(data, boxes, (24, 30), interpolation, flip, rows) / high
    difference = (kernel - matrix).abs()
    if dtype == torch.float32:
        assert difference.max() <= TOLERANCE
    else:
        assert difference.max() <= 1.01 / 255
        assert difference.mean() <= 0.15 / 255  # its weights have 8 to 15 bits


@each_way
def test_ragged_images_equal_the_single_ones() -> None:
    data = [stored(3, h, w)[2] for h, w in ((31, 57), (64, 20), (17, 17))]
    boxes = RandomResizedCrop((0.2, 1.0)).sample(keys(3), image_sizes(data))
    ours = crop_resize(data, boxes, (16, 16), value_range=(0, 255))
    padded = _batched(data, boxes, (16, 16), "bilinear", None, [0, 1, 2]) / 255
    for i in range(3):
        single = crop_resize(data[i][None], boxes[i : i + 1], (16, 16), value_range=(0, 255))
        assert torch.equal(ours[i], single[0])
    assert (ours - padded).abs().max() <= 1.01 / 255


@each_way
def test_sixteen_bit_and_offset_ranges_map_to_the_unit_interval() -> None:
    bytes_ = stored(4)
    boxes = RandomResizedCrop().sample(keys(4), image_sizes(bytes_))
    wide = (bytes_.to(torch.int32) * 257).to(torch.uint16)
    shifted = bytes_.to(torch.float32) * 2 - 100
    as_16 = crop_resize(wide, boxes, (20, 20), value_range=(0, 65535))
    as_float = crop_resize(shifted, boxes, (20, 20), value_range=(-100, 410))
    exact = crop_resize(bytes_.to(torch.float32), boxes, (20, 20), value_range=(0, 255))
    assert (as_16 - exact).abs().max() <= 1e-5
    assert (as_float - exact).abs().max() <= 1e-5


def test_antialias_weights_are_an_average() -> None:
    start, length = torch.tensor([0, 3, 7]), torch.tensor([11, 5, 1])
    weights = antialias_weights(start, length, 4, 12, "bicubic")
    assert torch.allclose(weights.sum(-1), torch.ones(3, 4))
    outside = torch.arange(12) < start[:, None]
    outside |= torch.arange(12) >= (start + length)[:, None]
    assert (weights.masked_select(outside[:, None].expand(-1, 4, -1)) == 0).all()


def test_centre_boxes_are_centre_crops() -> None:
    sizes = torch.tensor([[10, 21], [8, 8], [33, 16]])
    assert centre_boxes(sizes).tolist() == [[0, 5, 10, 10], [0, 0, 8, 8], [8, 0, 16, 16]]
    assert centre_boxes(sizes, 0.5)[2].tolist() == [12, 4, 8, 8]


def test_crop_distribution_is_torchvisions() -> None:
    """Kolmogorov-Smirnov on area, aspect and corner against torchvision's own draws."""
    n, image = 4000, torch.zeros(3, 60, 90)
    torch.manual_seed(3)
    crop = v2.RandomResizedCrop(32, scale=(0.08, 1.0))
    theirs = [crop.make_params([image]) for _ in range(n)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in theirs], float)
    sizes = torch.tensor([60, 90]).expand(n, 2)
    ours = RandomResizedCrop().sample(keys(n), sizes).numpy().astype(float)
    for measure in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0],
        lambda b: b[:, 1] / (91 - b[:, 3]),
    ):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3


def test_crop_falls_back_to_the_centre() -> None:
    """A 4 x 100 strip cannot hold half its area at the allowed aspects."""
    sizes = torch.tensor([[4, 100], [100, 4]])
    boxes = RandomResizedCrop((0.5, 1.0)).sample(keys(2), sizes)
    assert boxes.tolist() == [[0, 47, 4, 5], [47, 0, 5, 4]]
    theirs = v2.RandomResizedCrop(8, scale=(0.5, 1.0)).make_params([torch.zeros(3, 4, 100)])
    assert boxes[0].tolist() == [theirs[k] for k in ("top", "left", "height", "width")]


def test_crop_stays_inside_images_of_one_pixel() -> None:
    sizes = torch.tensor([[1, 1], [1, 9], [9, 1], [2, 3]])
    boxes = RandomResizedCrop().sample(keys(4), sizes)
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= sizes).all()


# --- colour -------------------------------------------------------------------------------------

FACTORS = torch.tensor([0.0, 0.2, 0.7, 1.0, 1.3, 1.8, 0.45, 1.05])


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (adjust_brightness, tv.adjust_brightness, FACTORS),
        (adjust_contrast, tv.adjust_contrast, FACTORS),
        (adjust_saturation, tv.adjust_saturation, FACTORS),
        (adjust_hue, tv.adjust_hue, FACTORS / 1.8 - 0.5),
    ],
)
def test_colour_equals_torchvision(ours, theirs, factors) -> None:
    x = images(8)
    got = ours(x.clone(), factors)
    for i in range(8):
        assert (got[i] - theirs(x[i], float(factors[i]))).abs().max() <= TOLERANCE


def test_jitter_in_random_order_equals_torchvision_in_that_order() -> None:
    n = 64
    x = images(n)
    jitter = ColourJitter(0.4, 0.4, 0.4, 0.1, p=0.8)
    params = jitter.sample(keys(n))
    ops = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    got = jitter.apply(x.clone(), params.codes().tolist(), params.factors)
    assert params.applied.any()
    assert not params.applied.all()
    for i in range(n):
        expected = x[i]
        for op in params.order[i].tolist() if params.applied[i] else []:
            expected = ops[op](expected, float(params.factors[i, op]))
        assert (got[i] - expected).abs().max() <= TOLERANCE


def test_small_images_are_gathered_and_keep_their_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 64
    small = images(n, height=30, width=32)
    jitter, grey, solarise = ColourJitter(0.4, 0.4, 0.4, 0.1, p=0.8), Grey(0.5), Solarise(0.5)
    params, greyed, sunny = (op.sample(keys(n)) for op in (jitter, grey, solarise))

    def changed() -> torch.Tensor:
        x = jitter.apply(small.clone(), params.codes().tolist(), params.factors)
        return solarise.apply(grey.apply(x, greyed), sunny)

    assert rows.worth_gathering(small, n // 4)
    gathered = changed()
    monkeypatch.setattr(rows, "_SMALL", 0)
    assert not rows.worth_gathering(small, n // 4)
    assert torch.equal(gathered, changed())


def test_grey_solarise_flip_normalise_equal_torchvision() -> None:
    x = images(8)
    on = torch.tensor([True, False] * 4)
    mean, std = (0.4, 0.5, 0.3), (0.2, 0.25, 0.3)
    normalised = Normalise(mean, std).apply(x.clone())
    for i in range(8):
        grey, sun, turned = x[i], x[i], x[i]
        if on[i]:
            grey = tv.rgb_to_grayscale(x[i], num_output_channels=3)
            sun, turned = tv.solarize(x[i], 0.5), tv.horizontal_flip(x[i])
        assert (Grey().apply(x.clone(), on)[i] - grey).abs().max() <= TOLERANCE
        assert torch.equal(Solarise().apply(x.clone(), on)[i], sun)
        assert torch.equal(HorizontalFlip().apply(x, on)[i], turned)
        assert (normalised[i] - tv.normalize(x[i], list(mean), list(std))).abs().max() <= 1e-6


@pytest.mark.parametrize("kernel", [3, 5, 23])
def test_blur_equals_torchvision(kernel: int) -> None:
    x = images(8)
    sigma = torch.tensor([0.0, 0.1, 0.3, 0.7, 1.0, 1.4, 1.9, 2.0])
    blur = GaussianBlur(kernel=kernel)
    got, batched = blur.apply(x.clone(), sigma), blur._batched(x.clone(), sigma)
    assert torch.equal(got[0], x[0])
    for i in range(1, 8):
        expected = tv.gaussian_blur(x[i], [kernel, kernel], [float(sigma[i])] * 2)
        assert (got[i] - expected).abs().max() <= TOLERANCE
        assert (batched[i] - expected).abs().max() <= TOLERANCE


def test_blur_without_a_kernel_takes_what_the_image_allows() -> None:
    x = images(4, 3, 6, 5)
    got = GaussianBlur().apply(x.clone(), torch.full((4,), 2.0))
    for i in range(4):  # reflection allows four pixels on five
        assert (got[i] - tv.gaussian_blur(x[i], [9, 9], [2.0, 2.0])).abs().max() <= TOLERANCE


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channel_counts_keep_brightness_and_contrast_only(channels: int) -> None:
    x = images(6, channels)
    jitter = ColourJitter(0.4, 0.4, 0.4, 0.1, p=1.0)
    params = jitter.sample(keys(6))
    got = jitter.apply(x.clone(), params.codes().tolist(), params.factors)
    for i in range(6):
        expected = x[i]
        for op in params.order[i].tolist():
            factor = params.factors[i, op]
            if op == 0:
                expected = (expected * factor).clamp(0, 1)
            if op == 1:
                expected = (expected * factor + expected.mean() * (1 - factor)).clamp(0, 1)
        assert (got[i] - expected).abs().max() <= TOLERANCE
    assert Grey().apply(x, torch.ones(6, dtype=torch.bool)) is x


# --- distributions ------------------------------------------------------------------------------


def test_jitter_distribution() -> None:
    n = 20_000
    params: JitterParams = ColourJitter(0.8, 0.4, 1.2, 0.2, p=0.8).sample(keys(n))
    for column, (low, high) in enumerate([(0.2, 1.8), (0.6, 1.4), (0.0, 2.2), (-0.2, 0.2)]):
        values = params.factors[:, column].numpy()
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3
    counts = np.unique(params.order.numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.binomtest(int(params.applied.sum()), n, 0.8).pvalue > 1e-3
    correlation = np.corrcoef(params.factors.T.numpy())
    assert np.abs(correlation - np.eye(4)).max() < 0.03


def test_probabilities_and_sigma() -> None:
    n = 20_000
    rng = keys(n)
    sigma = GaussianBlur(0.3, (0.1, 2.0)).sample(rng).numpy()
    assert stats.kstest(sigma[sigma > 0], "uniform", (0.1, 1.9)).pvalue > 1e-3
    draws = {0.3: sigma > 0, 0.2: Grey(0.2).sample(rng), 0.5: HorizontalFlip(0.5).sample(rng)}
    draws[0.1] = Solarise(0.1).sample(rng)
    for p, drawn in draws.items():
        assert stats.binomtest(int(drawn.sum()), n, p).pvalue > 1e-3
    together = np.corrcoef(np.stack([np.asarray(d, float) for d in draws.values()]))
    assert np.abs(together - np.eye(4)).max() < 0.03


def test_all_choices_of_a_view_are_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations name every stream they ask for: two calls for all, and the same numbers."""
    drawing = {"jitter": ColourJitter(), "grey": Grey(), "blur": GaussianBlur()}
    view = Augmentation(8, Normalise((0.5,), (0.5,)), **drawing, solarise=Solarise())
    rng, sizes = Rng.at(0, 0, torch.arange(9)), torch.full((9, 2), 20)
    mixed = mock.Mock(wraps=rng_module._mix)
    monkeypatch.setattr(rng_module, "_mix", mixed)
    params = view.sample(rng, sizes)
    assert mixed.call_count == 2
    assert torch.equal(params.boxes, view.crop.sample(rng, sizes))
    assert torch.equal(params.jitter.factors, view.jitter.sample(rng).factors)
    assert torch.equal(params.sigma, view.blur.sample(rng))


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_no_number_is_made_on_the_device_at_once(p: float, monkeypatch) -> None:
    """A copy from the host that an accelerator is waited for; without colours nothing is read back
    from the augmentation's own choices, either."""
    monkeypatch.setenv("SSL_COMPILED", "0")
    view = Augmentation(8, Normalise((0.5,) * 3, (0.5,) * 3), jitter=ColourJitter(p=p))
    batch = Batch(torch.randint(0, 256, (6, 3, 20, 20), dtype=torch.uint8), *[torch.arange(6)] * 2)
    rng, made = Rng.at(0, 0, batch.ids), torch.tensor
    view(batch, rng)  # what is kept from then on

    def tensor(values, *, dtype=None):  # no device
        return made(values, dtype=dtype)

    monkeypatch.setattr(torch, "tensor", tensor)
    monkeypatch.setattr(Tensor, "new_tensor", None)
    if not p:
        monkeypatch.setattr(JitterParams, "codes", None)
    assert view(batch, rng).data.shape == (6, 3, 8, 8)


def test_what_is_never_applied_is_not_drawn() -> None:
    """Its parameters look like drawn ones, and say that nothing happens."""
    rng, sizes = Rng.at(0, 0, torch.arange(9)), torch.full((9, 2), 20)
    plain = Augmentation(8, Normalise((0.5,), (0.5,))).sample(rng, sizes).provenance()
    drawing = {"jitter": ColourJitter(), "grey": Grey(), "blur": GaussianBlur()}
    drawn = Augmentation(8, Normalise((0.5,), (0.5,)), **drawing, solarise=Solarise())
    for name, other in drawn.sample(rng, sizes).provenance().items():
        assert (plain[name].shape, plain[name].dtype) == (other.shape, other.dtype), name
    assert not any(plain[name].any() for name in ("jittered", "grey", "blur_sigma", "solarise"))
    assert JitterParams.none(rng).codes().tolist() == [0] * 9


@pytest.mark.parametrize(
    "build",
    [
        lambda: RandomResizedCrop((0.0, 1.0)),
        lambda: RandomResizedCrop((0.5, 0.2)),
        lambda: ColourJitter(hue=0.6),
        lambda: GaussianBlur(sigma=(0.0, 1.0)),
        lambda: GaussianBlur(kernel=4),
    ],
)
def test_impossible_settings_are_refused(build) -> None:
    with pytest.raises(ValueError, match="must be"):
        build()
