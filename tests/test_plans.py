"""Every domain's default recipe is planned for a machine that is not here."""

from importlib import import_module

import pytest

DOMAINS = ("vision", "video", "audio", "medical", "graph", "text")


@pytest.mark.parametrize("name", DOMAINS)
def test_the_default_is_planned_for_eight_gpus(name, tmp_path):
    package = import_module(f"ssl_{name}")
    domain = getattr(package, name.upper())
    domain.samples(tmp_path, count=24, seed=0)
    found = package.plan(data=tmp_path, gpus=8, gpu="h100", batch_size=64)
    parts = found["memory"]["parts"]
    assert found["memory"]["fits"]
    assert parts["gradients"] == parts["parameters"], "copies keep their gradients in buckets"
    assert parts["activations"] > 0
    assert found["flops"] > 6 * found["parameters"]["trained"], "two forward, four backward, a row"
    assert found["loader"]["decoded_mb_per_second"] > 0
