"""Virtual adversarial training: outputs should not change where they would change most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssl_core.objectives.precision import full_precision


@full_precision
def divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(sg p || q) of categorical logits `[B, ..., V]`: summed over all but B, mean over B."""
    p = p_logits.detach().log_softmax(-1)
    q = q_logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum() / len(p_logits)


def adversarial_noise(
    logits_of: Callable[[Tensor], Tensor],
    embeddings: Tensor,
    clean: Tensor,
    start: Tensor,
    *,
    steps: Sequence[float] = (1e-3,),
    eps: float = 1e-6,
) -> Tensor:
    """Noise of about unit length a token that moves the outputs most (Miyato et al. 2018).

    Arguments:
        logits_of: outputs `[B, N, V]` of embeddings `[B, N, D]`.
        embeddings: where to start from; no gradient reaches them.
        clean: their outputs, a constant here.
        start: first noise `[B, N, D]`, small.
        steps: size of each ascent along the gradient of `divergence(clean, noisy)`; after each
            the noise of a token is divided by its length plus `eps`.

    Gradients are taken whatever the caller's mode, and only with respect to the noise.
    """
    noise = start.detach()
    for step in steps:
        with torch.enable_grad():
            noise = noise.requires_grad_()
            moved = divergence(clean, logits_of(embeddings.detach() + noise))
            (slope,) = torch.autograd.grad(moved, noise)
        noise = (noise + step * slope).detach()
        noise = noise / (noise.norm(dim=-1, keepdim=True) + eps)
    return noise


def virtual_adversarial(
    logits_of: Callable[[Tensor], Tensor],
    embeddings: Tensor,
    start: Tensor,
    *,
    steps: Sequence[float] = (1e-3,),
    clean: Tensor | None = None,
) -> Tensor:
    """KL(sg clean || noisy) + KL(sg noisy || clean) under `adversarial_noise` (URLBERT, 2024).

    Sums over tokens, mean over samples; the release sums over samples too. No noise costs 0.
    """
    first = logits_of(embeddings) if clean is None else clean
    noise = adversarial_noise(logits_of, embeddings, first.detach(), start, steps=steps)
    noisy = logits_of(embeddings + noise)
    return divergence(first, noisy) + divergence(noisy, first)
