"""BIOptimus (BioNLP 2023): a masked language model whose masks get harder in stages.

Each stage sets what is hidden and how: pieces or whole words, which share, with random and kept
words or [MASK] alone. The published stages are 15 % pieces, 15 % words, 20 % words, all with
80/10/10, then 20 % words that are always [MASK]; each continues from the one before. Stage borders
are shares of the run, so that a stage is a function of the step alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ssl_core.views import ViewPolicy
from ssl_text.methods.mlm import MLM, BertMasker, RandomPieces, chooser

STAGES: tuple[dict[str, Any], ...] = (
    {"until": 0.25, "unit": "token", "mask_ratio": 0.15, "random": 0.1, "kept": 0.1},
    {"until": 0.5, "unit": "word", "mask_ratio": 0.15, "random": 0.1, "kept": 0.1},
    {"until": 0.75, "unit": "word", "mask_ratio": 0.2, "random": 0.1, "kept": 0.1},
    {"until": 1.0, "unit": "word", "mask_ratio": 0.2, "random": 0.0, "kept": 0.0},
)
_KEYS = {"until", "unit", "mask_ratio", "random", "kept"}


class CurriculumMLM(MLM):
    """An MLM with `stages`, mappings with the keys of `STAGES`; the last `until` must be 1.

    `tied` as in `MLM`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        stages: Sequence[Mapping[str, Any]] = STAGES,
        tied: bool = True,
    ) -> None:
        borders = [stage.get("until") for stage in stages]
        if not stages or any(set(stage) != _KEYS for stage in stages):
            raise ValueError(f"stages must be mappings with the keys {sorted(_KEYS)}")
        if borders != sorted(borders) or borders[-1] != 1:  # type: ignore[type-var]
            raise ValueError(f"stages: `until` must rise to 1, got {borders}")
        for stage in stages:
            if min(stage["random"], stage["kept"]) < 0 or stage["random"] + stage["kept"] > 1:
                raise ValueError(f"stages: random + kept must lie in [0, 1], got {stage}")
            chooser(stage["unit"], stage["mask_ratio"], None)
        super().__init__(encoder, views, tied=tied)
        self.stages = [dict(stage) for stage in stages]
        self.before_step(0, 1)

    @property
    def stage(self) -> int:
        """The number of the stage of the current step."""
        step, total = self.progress
        done = step / total
        return next(n for n, stage in enumerate(self.stages) if done < stage["until"])

    def before_step(self, step: int, total: int) -> None:
        super().before_step(step, total)
        now = self.stages[self.stage]
        self.masked_share = 1 - now["random"] - now["kept"]
        self.masker = BertMasker(now["mask_ratio"], self.masked_share)
        self.units = chooser(now["unit"], now["mask_ratio"], None)
        vocabulary = self.encoder.vocabulary.num_embeddings  # type: ignore[union-attr]
        self.corrupt = RandomPieces(vocabulary, self.masked_share, now["random"])
