"""TAPE's heads and measures (Rao et al., NeurIPS 2019), and token tagging in general."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.errors import UserError


class ContactHead(nn.Module):
    """Do two residues touch? Linear in their product and difference, made symmetric.

    States `[B, L, D]` with [CLS] and [SEP] at both ends give logits `[B, L - 2, L - 2, 2]`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * dim, 2)

    def forward(self, states: Tensor) -> Tensor:
        rows, columns = states[:, :, None], states[:, None]
        logits = self.linear(torch.cat([rows * columns, rows - columns], dim=-1))
        logits = (logits + logits.transpose(1, 2)) / 2
        out: Tensor = logits[:, 1:-1, 1:-1]
        return out


def contact_loss(logits: Tensor, contact: Tensor) -> Tensor:
    """Cross-entropy over all pairs of both triangles; `contact` int64 `[B, N, N]`, -1 unknown."""
    return F.cross_entropy(logits.reshape(-1, 2).float(), contact.reshape(-1), ignore_index=-1)


def contact_precision(
    logits: Tensor, contact: Tensor, lengths: Tensor, *, apart: int = 6, share: int = 5
) -> float:
    """Share of true contacts among the L / `share` likeliest pairs, pooled over proteins.

    Pairs lie at least `apart` residues from each other and have a known label. Where there are
    fewer such pairs than L / share, those there are count (the release then counts unknown ones).
    """
    probability = logits.double().softmax(-1)[..., 1]
    place = torch.arange(contact.shape[1], device=contact.device)
    far = place[None] - place[:, None] >= apart
    right = total = 0
    for row, truth, length in zip(probability, contact, lengths.tolist(), strict=True):
        usable = far & (truth >= 0)
        scores, labels = row[usable], truth[usable]
        best = scores.topk(min(length // share, len(scores))).indices
        right += int(labels[best].sum())
        total += len(best)
    if total == 0:
        raise UserError("contacts: not one pair with a known label is far enough apart")
    return right / total


def token_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of right tokens, pooled over sequences; `[B, L, C]`, int64 `[B, L]`, -1 ignored."""
    known = labels >= 0
    if not known.any():
        raise UserError("tags: not one token has a label")
    return float((logits.argmax(-1) == labels)[known].double().mean())


class TagHead(nn.Module):
    """A class for every token: secondary structure, parts of speech, entities."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, classes)

    def forward(self, states: Tensor) -> Tensor:
        """Logits `[B, L, C]` of states `[B, L, D]`."""
        out: Tensor = self.linear(states)
        return out


def tag_probe(
    bank: Tensor, tags: Tensor, queries: Tensor, query_tags: Tensor, *, seed: int = 0
) -> float:
    """Accuracy of a linear probe on frozen token states: `[B, L, D]` with tags `[B, L]`.

    Tokens with tag -1 are left out. The penalty is chosen on a part of the bank.
    """
    from ssl_core.evaluation.probe import linear_probe

    known, asked = tags >= 0, query_tags >= 0
    probe = linear_probe(bank[known], tags[known], seed=seed)
    return probe.accuracy(queries[asked], query_tags[asked])
