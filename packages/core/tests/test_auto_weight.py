"""Learned weights of losses: their value at the start, where they come to rest."""

import math

import torch

from ssl_core.networks.auto_weight import AutoWeight


def test_value_at_the_start_and_at_rest() -> None:
    weigh = AutoWeight(2)
    parts = weigh({"a": torch.tensor(3.0), "b": torch.tensor(0.5)})
    for name, value in (("a", 3.0), ("b", 0.5)):
        torch.testing.assert_close(parts[name].item(), value / 2 + math.log(2))
    # L (1 + s^2) = 2 s^4 leaves no gradient, and a larger loss ends with a larger s.
    for value in (0.5, 3.0, 20.0):
        square = (value + math.sqrt(value**2 + 8 * value)) / 4
        with torch.no_grad():
            weigh.scale.fill_(math.sqrt(square))
        total = torch.stack(
            list(weigh({"a": torch.tensor(value), "b": torch.tensor(value)}).values())
        ).sum()
        (gradient,) = torch.autograd.grad(total, [weigh.scale])
        assert gradient.abs().max() < 1e-5
        assert total > 0
