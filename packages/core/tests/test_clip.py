"""CLIP and its text tower: released values, limits, what padding and later tokens cannot change."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reference import golden, keys
from ssl_core.batch import Record
from ssl_core.data.captions import Captioned, CaptionReader, captions_of, require_captions
from ssl_core.encoder import Features
from ssl_core.errors import CorruptSample, UserError
from ssl_core.methods.base import Step
from ssl_core.methods.clip import CLIP
from ssl_core.networks.text_tower import TextTower, text_tower
from ssl_core.objectives import siglip
from ssl_core.testing.vectors import VectorReader
from ssl_core.views import View

FINITE = torch.tensor(True)


class Through(nn.Module):
    """Features that are the data."""

    def __init__(self, dim=5):
        super().__init__()
        self.embed_dim = dim

    def forward(self, x):
        return Features(x)


def made(**options):
    method = CLIP(Through(), None, tower=Through(), dim=5, **options).double()
    with torch.no_grad():
        method.projector.weight.copy_(torch.eye(5))
        method.tower_projector.weight.copy_(torch.eye(5))
    return method


def pair(images, texts):
    rng = keys(len(images))
    return [View(images, rng), View(texts, rng, role="caption")]


def test_loss_and_gradients_are_the_released_ones():
    """mlfoundations/open_clip, loss.py: ClipLoss; the scale learns too."""
    g = golden("clip/loss")
    method = made(scale=math.exp(g["log_scale"].item()))
    image, text = g["image"].requires_grad_(), g["text"].requires_grad_()
    loss = method(pair(image, text)).total
    torch.testing.assert_close(loss, g["loss"], rtol=1e-7, atol=0)  # the start went through float32
    got = torch.autograd.grad(loss, [image, text, method.log_scale])
    for value, name in zip(got, ("image", "text", "log_scale"), strict=True):
        torch.testing.assert_close(value.squeeze(), g[f"grad_{name}"], rtol=1e-5, atol=1e-8)


def test_towers_may_be_swapped_and_pairs_permuted():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    method, order = made(), torch.tensor([3, 0, 5, 1, 2, 4])
    loss = method(pair(a, b)).total
    torch.testing.assert_close(method(pair(b, a)).total, loss)
    torch.testing.assert_close(method(pair(a[order], b[order])).total, loss)
    flat = torch.ones(6, 5, dtype=torch.float64)
    assert method(pair(flat, flat)).total.item() == pytest.approx(math.log(6))
    one_hot = torch.eye(5, dtype=torch.float64)
    want = math.log(1 + 4 * math.exp(-1 / 0.07))
    assert method(pair(one_hot, one_hot)).total.item() == pytest.approx(want, rel=1e-4)


def test_the_sigmoid_form_is_siglip_with_a_learned_bias():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    method = made(pairs="sigmoid")
    loss = method(pair(a, b)).total
    torch.testing.assert_close(loss, siglip(a, b, math.log(10), -10.0), rtol=1e-6, atol=0)
    loss.backward()
    assert method.bias.grad.abs() > 0
    assert method.log_scale.grad.abs() > 0


def test_several_views_count_by_the_mean_over_combinations():
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    method = made()
    rng = keys(6)
    loss = method([View(a, rng), View(b, rng), View(c, rng, role="caption")]).total
    torch.testing.assert_close(loss, (method(pair(a, c)).total + method(pair(b, c)).total) / 2)
    with pytest.raises(UserError, match="captioned"):
        method([View(a, rng)])


def test_the_scale_is_held_below_its_bound_and_can_come_back():
    method = made(max_scale=20.0)
    with torch.no_grad():
        method.log_scale.fill_(5.0)
    method.after_step(Step(0, 1, FINITE))
    assert method.log_scale.exp().item() == pytest.approx(20, rel=1e-5)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    method(pair(a, b)).total.backward()
    assert method.log_scale.grad.abs() > 0
    with pytest.raises(ValueError, match="scale"):
        made(scale=200.0)


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return TextTower(vocab_size=20, length=8, pad_id=0, dim=16, depth=2, heads=2).eval()


def test_the_tower_reads_from_left_to_right(tower):
    ids = torch.tensor([[1, 5, 6, 7, 2, 0, 0, 0], [1, 5, 6, 9, 2, 0, 0, 0]])
    out = tower(ids)
    torch.testing.assert_close(out.tokens[0, :3], out.tokens[1, :3])
    assert not torch.allclose(out.tokens[0, 3], out.tokens[1, 3])
    torch.testing.assert_close(out.pooled, out.tokens[:, 4])
    assert out.valid.sum(1).tolist() == [5, 5]
    torch.testing.assert_close(tower(ids[:, :5]).pooled, out.pooled)  # padding changes nothing
    with torch.no_grad():
        tower.token_embed.weight[0] = 9.0
    torch.testing.assert_close(tower(ids).pooled, out.pooled)


def test_residual_branches_start_smaller_the_deeper_the_tower(tower):
    std = tower.blocks[0].mlp.fc2.weight.std().item()
    assert std == pytest.approx(16**-0.5 * 4**-0.5, rel=0.1)
    with pytest.raises(UserError, match="captions"):
        text_tower({"dim": 3})


CORPUS = ["a small light seven", "a large dark two", "a small dark one"] * 4


class Records(list):
    """Vectors whose meta holds captions."""

    classes = None


def records(*captions):
    return Records(
        Record(f"row-{i}", torch.ones(3) * i, None, {"caption": caption})
        for i, caption in enumerate(captions)
    )


def reader_of(source, length=8):
    fitted = CaptionReader.fit(
        VectorReader(3), source, field="caption", length=length, vocab_size=300
    )
    require_captions(source, "caption")
    return fitted


def test_captions_are_drawn_in_training_and_fixed_in_evaluation(tmp_path):
    pytest.importorskip("tokenizers")
    source = records(["one thing", "", "another thing"], "only this", None, *CORPUS)
    assert captions_of(source[0], "caption") == ["one thing", "another thing"]
    reader = reader_of(source)
    first, second = reader.encode("one thing"), reader.encode("another thing")
    assert torch.equal(reader.decode(source[0])[1], first)
    drawn = {tuple(reader.draw(source[0], key)[1].tolist()) for key in range(4)}
    assert drawn == {tuple(first.tolist()), tuple(second.tolist())}
    assert torch.equal(reader.draw(source[1], 7)[1], reader.encode("only this"))
    with pytest.raises(CorruptSample, match="no caption"):
        reader.draw(source[2], 0)
    assert torch.equal(reader.decode(source[2])[1], reader.encode(""))
    batch = reader.collate([reader.decode(record) for record in source[:3]])
    assert isinstance(batch, Captioned)
    assert batch.ids.shape == (3, 8)
    assert len(batch.to("cpu")) == 3
    torch.testing.assert_close(reader.raw(batch), torch.arange(3.0)[:, None].expand(3, 3))
    reader.save(tmp_path)
    assert CaptionReader.saved_in(tmp_path)
    again = CaptionReader.load(VectorReader(3), tmp_path)
    assert again.spec == reader.spec
    assert torch.equal(again.encode("one thing"), first)


def test_ids_are_cut_padded_and_end_in_a_token_of_their_own():
    pytest.importorskip("tokenizers")
    reader = reader_of(records(*CORPUS), length=5)
    long, short = reader.encode("a small light seven a small dark one"), reader.encode("a")
    assert (long[0], long[-1]) == (reader.special.cls, reader.special.sep)
    assert short.tolist()[0] == reader.special.cls
    assert short.tolist()[3:] == [reader.special.pad] * 2
    assert reader.spec["captions"]["length"] == 5
    assert F.one_hot(long.long()).shape[1] <= reader.spec["captions"]["vocab_size"]


def test_data_without_captions_says_what_is_there():
    source = Records([Record("a", torch.ones(3), None, {"title": "a cat"})])
    with pytest.raises(UserError, match="records have title"):
        require_captions(source, "caption")
