"""SparK against the released code, and what must hold of any sparse network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference import OneView, draw, golden, keys
from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.methods.spark import SparK
from ssl_core.networks.masks import RandomMasker, mask_from_order
from ssl_core.networks.patch_embed import patchify
from ssl_core.networks.pyramid import PyramidDecoder, map_widths
from ssl_core.networks.sparse import sparse_pass, visible_at
from ssl_core.networks.weights import load_weights
from ssl_core.objectives import normalise_patches
from ssl_core.views import View


class ReleasedCNN(nn.Module):
    """The small network of the golden values: three maps at strides 2, 4, 8."""

    embed_dim = 10

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 4, 3, 2, 1)
        self.b1 = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.c2 = nn.Conv2d(4, 6, 3, 1, 1, bias=False)
        self.b2 = nn.BatchNorm2d(6)
        self.average = nn.AvgPool2d(2)
        self.c3 = nn.Conv2d(6, 10, 3, 1, 1)
        self.b3 = nn.BatchNorm2d(10)
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x: Tensor) -> Features:
        x = self.acts[0](self.b1(self.c1(x)))
        x = self.acts[1](self.b2(self.c2(self.pool(x))))
        x = self.acts[2](self.b3(self.c3(self.average(x))))
        return Features(x.mean((2, 3)), x.flatten(2).transpose(1, 2), tuple(x.shape[2:]))


class Net(nn.Module):
    """Convolutions with the norm of choice on any number of axes, with a residual block."""

    embed_dim = 6

    def __init__(self, axes: int, norm: str = "batch") -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        norms = {
            "batch": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1],
            "instance": lambda c: (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[
                axes - 1
            ](c, affine=True),
            "group": lambda c: nn.GroupNorm(2, c),
        }
        self.axes = axes
        self.stem = nn.Sequential(conv(2, 4, 3, 2, 1), norms[norm](4), nn.GELU())
        self.down = nn.Sequential(conv(4, 6, 3, 2, 1, bias=False), norms[norm](6), nn.GELU())
        self.block = nn.Sequential(conv(6, 6, 3, 1, 1), norms[norm](6))

    def forward(self, x: Tensor) -> Features:
        x = self.down(self.stem(x))
        x = x + self.block(x)
        return Features(x.flatten(2).mean(2))


def released_method(arrays: dict[str, Tensor]) -> SparK:
    method = SparK(ReleasedCNN(), OneView(), decoder_dim=8).double()
    weights = {name[2:]: value for name, value in arrays.items() if name.startswith("w.")}
    encoder = {
        name.removeprefix("sparse_encoder.sp_cnn."): value
        for name, value in weights.items()
        if name.startswith("sparse_encoder")
    }
    assert load_weights(method.encoder, encoder, minimum=1.0).missing == []
    decoder = {}
    for name, value in weights.items():
        kind, _, rest = name.partition(".")
        if kind == "dense_decoder":
            decoder[rest.replace("dec.", "blocks.").replace("proj.", "out.")] = value
        elif kind in ("densify_norms", "densify_projs", "mask_tokens"):
            number, _, rest = rest.partition(".")
            part = {"densify_norms": "norm", "densify_projs": "proj", "mask_tokens": "mask_token"}
            decoder[f"densify.{number}.{part[kind]}{'.' * bool(rest)}{rest}"] = value
    assert load_weights(method.decoder, decoder, minimum=1.0).missing == []
    order = arrays["noise"].argsort(dim=1)
    method.masker = lambda rng, count, *, grid: mask_from_order(order, 6, mode="replace", grid=grid)
    return method


def test_forward_gradients_and_statistics_equal_the_released_code() -> None:
    """keyu-tian/SparK, pretrain/spark.py, encoder.py, decoder.py."""
    arrays = golden("spark/tiny_forward")
    method = released_method(arrays)
    prediction = method.encode([View(arrays["x"], keys(2))])[0]
    hidden = prediction.mask.hidden.reshape(2, 1, 4, 4)
    assert torch.equal(~hidden, arrays["active"])
    rebuilt = patchify(arrays["rec"], (8, 8))
    torch.testing.assert_close(prediction.predicted, rebuilt, atol=1e-9, rtol=0)
    loss = method.loss([prediction]).total
    torch.testing.assert_close(loss, arrays["loss"], atol=1e-8, rtol=0)
    loss.backward()
    encoder, decoder = method.encoder, method.decoder
    for name, parameter in [
        ("mask_tokens.0", decoder.densify[0].mask_token),
        ("mask_tokens.2", decoder.densify[2].mask_token),
        ("sparse_encoder.sp_cnn.c1.weight", encoder.c1.weight),
        ("sparse_encoder.sp_cnn.b2.weight", encoder.b2.weight),
        ("densify_projs.1.weight", decoder.densify[1].proj.weight),
        ("dense_decoder.proj.weight", decoder.out.weight),
    ]:
        torch.testing.assert_close(parameter.grad, arrays[f"g.{name}"], atol=1e-9, rtol=0)
    for name in ("b1", "b2", "b3"):
        for moment in ("running_mean", "running_var"):
            got = getattr(getattr(encoder, name), moment)
            want = arrays[f"after.sparse_encoder.sp_cnn.{name}.{moment}"]
            torch.testing.assert_close(got, want, atol=1e-9, rtol=0)
    for number in range(3):
        want = arrays[f"after.densify_norms.{number}.running_var"]
        got = decoder.densify[number].norm.running_var
        torch.testing.assert_close(got, want, atol=1e-9, rtol=0)


def test_sparse_maps_equal_the_released_ones() -> None:
    arrays = golden("spark/tiny_forward")
    method = released_method(arrays)
    visible = arrays["active"]
    with sparse_pass(method.encoder, visible) as maps:
        method.encoder(torch.where(visible_at(visible, (32, 32)), arrays["x"], 0.0))
    for stride in (2, 4, 8):
        got = maps[(32 // stride,) * 2]
        torch.testing.assert_close(got, arrays[f"fea_stride{stride}"], atol=1e-9, rtol=0)


class ConvNeXtBlock(nn.Module):
    """Depth-wise convolution, norm and two linear layers over the last axis, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.LayerNorm(6, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(6, 24), nn.Linear(24, 6)
        self.gamma = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("name", "given", "layer"),
    [
        ("bn", "f", nn.BatchNorm2d(6)),
        ("conv", "f", nn.Conv2d(6, 5, 3, padding=1)),
        ("cnxblock", "f_masked", ConvNeXtBlock()),
        ("avgpool", "f_masked", nn.AvgPool2d(2)),
        ("maxpool", "f", nn.MaxPool2d(3, 2, 1)),
    ],
)
def test_single_layers_equal_the_released_ones(name: str, given: str, layer: nn.Module) -> None:
    arrays = golden("spark/single_layers")
    prefix = f"w.{name}."
    weights = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    layer = layer.double()
    layer.load_state_dict(weights)
    if name == "bn":
        layer.reset_running_stats()  # the weights were stored after the pass
    network = nn.Sequential(layer)
    with sparse_pass(network, arrays["active"]):
        got = network(arrays[given])
    expected = arrays["y_cnxblock_on_masked" if name == "cnxblock" else f"y_{name}"]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    if name == "bn":
        torch.testing.assert_close(layer.running_var, arrays["bn_running_var"])


def test_keep_counts_equal_the_released_ones() -> None:
    for length, ratio, kept in golden("spark/keep_count")["rows_L_ratio_keep"].tolist():
        masker = RandomMasker(ratio, count_rule="keep_round")
        assert int(length) - masker.hidden_count(int(length)) == kept


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_hidden_content_never_reaches_a_visible_feature(axes: int, norm: str) -> None:
    network = Net(axes, norm).double()
    x = draw(3, 2, *[16] * axes).detach()
    units = (4,) * axes
    hidden = RandomMasker(0.5, mode="replace")(keys(3), 4**axes, grid=units).hidden
    visible = ~hidden.reshape(3, 1, *units)
    shown = torch.where(visible_at(visible, (16,) * axes), x, 0.0)
    with sparse_pass(network, visible) as maps:
        network(shown)
    for sides, features in maps.items():
        mask = visible_at(visible, sides)
        assert (features[~mask.expand_as(features)] == 0).all()
    with sparse_pass(network, None) as dense:
        network(shown)
    assert set(dense) == set(maps)
    for module in network.modules():
        assert not module._forward_hooks
        assert "forward" not in module.__dict__


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_with_everything_visible_the_network_is_itself(norm: str) -> None:
    first, second = Net(2, norm).double(), Net(2, norm).double()
    second.load_state_dict(first.state_dict())
    x = draw(3, 2, 16, 16).detach()
    expected = first(x).pooled
    with sparse_pass(second, torch.ones(3, 1, 4, 4, dtype=torch.bool)):
        torch.testing.assert_close(second(x).pooled, expected)
    for (name, a), (_, b) in zip(
        first.state_dict().items(), second.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_parameter_learns_on_any_number_of_axes(axes: int) -> None:
    method = SparK(Net(axes), OneView(), mask_ratio=0.5, decoder_dim=8)
    assert method.unit == (4,) * axes
    data = torch.randn(4, 2, *[16] * axes, generator=torch.Generator().manual_seed(0))
    prediction = method.encode([View(data, keys(4))])[0]
    torch.testing.assert_close(
        prediction.target, normalise_patches(patchify(data, method.unit)), atol=0, rtol=0
    )
    method.loss([prediction]).total.backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


def test_a_zero_prediction_costs_the_line_of_no_learning() -> None:
    method = SparK(Net(2), OneView(), decoder_dim=8)
    nn.init.zeros_(method.decoder.out.weight)
    nn.init.zeros_(method.decoder.out.bias)
    data = torch.randn(4, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    loss = method([View(data, keys(4))]).total
    assert loss.item() == pytest.approx(31 / 32, abs=1e-4)


def test_networks_without_maps_and_odd_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="no convolutions"):
        map_widths(nn.Linear(2, 2))
    with pytest.raises(UserError, match="cannot be cut"):
        SparK(Net(2), OneView(), decoder_dim=8)([View(torch.zeros(2, 2, 18, 18), keys(2))])
    with pytest.raises(UserError, match="does not divide"):
        visible_at(torch.ones(1, 1, 4, 4, dtype=torch.bool), (6, 6))
    with pytest.raises(ValueError, match="multiple of the encoder's stride"):
        PyramidDecoder({8: 4}, 3, dim=12, axes=2)


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_pictures_leave_the_visible_units_as_they_are(norm_pixels: bool) -> None:
    method = SparK(Net(2), OneView(), decoder_dim=8, norm_pixels=norm_pixels).eval()
    x = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pictures = method.shown([View(x, keys(2))])
    seen = ~pictures["hidden"].isnan()
    assert seen.double().mean().item() == pytest.approx(6 / 16)
    assert torch.equal(pictures["hidden"][seen], x[seen])
    assert torch.equal(pictures["predicted"][seen], x[seen])
    assert torch.isfinite(pictures["predicted"]).all()
