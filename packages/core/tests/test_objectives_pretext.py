"""Pretext losses, discriminators and the HOG target."""

import math

import pytest
import torch
import torch.nn.functional as F

from reference import assert_gradients, draw, golden
from ssl_core.objectives import accuracy, bce, hog, hog_patches, jsd, pretext_cross_entropy


def test_hog_equals_the_release():
    """facebookresearch/SlowFast HOGLayerC and the label layout of MaskMViT."""
    g = golden("maskfeat/hog")
    got = hog(g["x"].double())
    torch.testing.assert_close(got, g["hog_g0"].double(), rtol=0, atol=2e-5)
    label = hog_patches(got, patch_cells=2)
    torch.testing.assert_close(label, g["label_g0"].double(), rtol=0, atol=2e-5)


def test_hog_of_flat_and_striped_images():
    flat = torch.full((1, 3, 16, 16), 0.3)  # not exactly representable
    assert hog(flat).count_nonzero() == 0
    stripes = torch.arange(32.0).expand(1, 1, 32, 32)
    along, across = hog(stripes)[0, 0], hog(stripes.mT)[0, 0]
    inner = (slice(None), slice(1, 3), slice(1, 3))
    assert along[inner].sum(0).allclose(torch.ones(2, 2))
    assert torch.equal(along[inner].argmax(0), torch.full((2, 2), 4))  # a gradient to the right
    assert torch.equal(across[inner].argmax(0), torch.zeros(2, 2).long())
    with pytest.raises(ValueError, match="multiples of cell"):
        hog(torch.zeros(1, 3, 20, 16))
    with pytest.raises(ValueError, match="squares of 3"):
        hog_patches(hog(stripes), patch_cells=3)


def test_discriminator_equals_dgi():
    """PetarV-/DGI: the mean over 2N logits."""
    g = golden("dgi/full_step")
    positive, negative = g["logits"].chunk(2, dim=1)
    torch.testing.assert_close(bce(positive, negative), g["loss"], rtol=1e-9, atol=0)


def test_discriminators_are_their_definitions():
    p, n = draw(5), draw(7, seed=1)
    weight = torch.tensor([1.0, 0, 2, 1, 0])
    true = (-F.logsigmoid(p) * weight).sum() / 4
    false = -F.logsigmoid(-n).mean()
    got = bce(p, n, positive_weight=weight)
    torch.testing.assert_close(got, (true + false) / 2, rtol=1e-12, atol=0)
    log2 = math.log(2)
    want = -((log2 - F.softplus(-p)).mean() - (F.softplus(-n) + n - log2).mean())
    torch.testing.assert_close(jsd(p, n), want, rtol=1e-12, atol=1e-15)
    assert_gradients(jsd(p, n), [p, n], list(torch.autograd.grad(want, [p, n])))
    zero = torch.zeros(4, dtype=torch.float64)
    assert bce(zero, zero).item() == pytest.approx(log2)
    assert jsd(zero, zero).item() == pytest.approx(0, abs=1e-15)


def test_pretext_cross_entropy_is_torchs():
    logits, labels = draw(4, 3, 5), torch.arange(12).reshape(4, 3) % 5
    labels[1, 2] = -1
    rows, ids = logits.flatten(0, 1), labels.flatten()
    want = F.cross_entropy(rows, ids, ignore_index=-1, label_smoothing=0.1)
    got = pretext_cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert_gradients(got, [logits], list(torch.autograd.grad(want, [logits])))
    soft = draw(4, 3, 5, seed=1).detach().softmax(-1)
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    each = -(soft * logits.log_softmax(-1)).sum(-1) * (soft @ weights)
    torch.testing.assert_close(
        pretext_cross_entropy(logits, soft, class_weights=weights), each.mean()
    )
    hard = -logits.log_softmax(-1)[0].gather(1, labels[0].unsqueeze(1)).squeeze(1)
    got = pretext_cross_entropy(logits[0], labels[0], class_weights=weights)
    torch.testing.assert_close(got, (hard * weights[labels[0]]).mean())


def test_collapsed_value_and_accuracy():
    labels = torch.tensor([0, 1, 2, 3])
    flat = torch.zeros(4, 4, dtype=torch.float64)
    assert pretext_cross_entropy(flat, labels).item() == pytest.approx(math.log(4))
    assert accuracy(torch.eye(4), labels) == 1
    assert accuracy(torch.eye(4).roll(1, 0), labels) == 0
    with pytest.raises(ValueError, match="do not fit"):
        pretext_cross_entropy(flat, labels[:3])
