"""CaseHOLD's two instruments (Zheng et al., ICAIL 2021): multiple choice, domain specificity."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_text.methods.mlm import MLM


class MultipleChoice(nn.Module):
    """One score for each of C answers to a context, from the vector of "context answer".

    A linear layer on the encoder's pooled vector, trained together with it.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.score = nn.Linear(encoder.embed_dim, 1)  # type: ignore[arg-type]

    def forward(self, data: object, choices: int) -> Tensor:
        """Scores `[B, C]` of a batch with the C choices of each item one after another."""
        pooled: Tensor = self.encoder(data).pooled
        if len(pooled) % choices:
            raise ValueError(f"{len(pooled)} rows are no multiple of {choices} choices")
        scores: Tensor = self.score(pooled).view(-1, choices)
        return scores


def choice_loss(scores: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of scores `[B, C]`; equal scores cost log C, whatever the answers' order."""
    return F.cross_entropy(scores.float(), answers)


def macro_f1(predicted: Tensor, answers: Tensor) -> float:
    """Mean over the answers that occur of the F1 of each, as CaseHOLD reports it."""
    from sklearn.metrics import f1_score  # type: ignore[import-untyped]

    present = answers.unique().tolist()
    truth, guess = answers.cpu().numpy(), predicted.cpu().numpy()
    return float(f1_score(truth, guess, labels=present, average="macro", zero_division=0.0))


@torch.no_grad()
def mlm_loss(method: MLM, batches: Iterable[Batch], *, seed: int = 0) -> Tensor:
    """The masked-language-model loss of each document, float64 `[N]`, in evaluation mode.

    Masks depend on the seed and the document's id alone, so two models are asked the same.
    """
    training = method.training
    method.eval()
    losses = []
    try:
        for batch in batches:
            for rep in method.encode(method.views(batch, Rng.at(seed, 0, batch.ids))):
                costs = F.cross_entropy(
                    rep.predicted.double(), rep.target[rep.mask.hidden], reduction="none"
                )
                rows = rep.mask.hidden.nonzero()[:, 0]
                total = costs.new_zeros(len(batch)).index_add_(0, rows, costs)
                losses.append(total / rep.mask.hidden.sum(1).clamp(min=1))
    finally:
        method.train(training)
    return torch.cat(losses)


def domain_specificity(general: Tensor, domain: Tensor) -> float:
    """Mean over documents of general-model loss less domain-model loss, both `[N]` (`mlm_loss`).

    Above 0: the texts are of the domain. 0 for a model against itself; exchanging the models
    changes the sign. Compare models of equal compute (the paper's BERT "double").
    """
    if general.shape != domain.shape:
        raise ValueError(f"losses of one set of documents, got {general.shape}, {domain.shape}")
    return float((general - domain).mean())
