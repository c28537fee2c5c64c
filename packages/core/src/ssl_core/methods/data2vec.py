"""data2vec 2.0 (Baevski et al., ICML 2023): predict a teacher's averaged layers where hidden.

    L = sqrt(D) (mean over hidden tokens of mean_d (y - t)^2 + utterance mean_d (p - mean t)^2)
    t = LN(mean over the last `layers` blocks of IN(teacher block output)), the whole input seen

Each sample is encoded under `masks` masks that share one target; only visible tokens are encoded,
and convolutions on the token grid predict the others. `mask`, `masks` and `decoder` give the
first data2vec (ICML 2022; text: random, 1, linear) and EAT (IJCAI 2024: squares of 5,
`utterance=1`, p the class token). Hidden places are filled by a learned vector where the released
decoder takes noise, and the utterance term is a mean where EAT's code sums over the batch.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.methods.base import Loss, Step
from ssl_core.methods.masked import MaskedModel, Prediction, one_width, token_patch, token_widths
from ssl_core.networks.block_outputs import block_outputs
from ssl_core.networks.decoders import ConvDecoder, PixelShuffleHead
from ssl_core.networks.maskers import MaskKind, make_masker
from ssl_core.networks.masks import Mask
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import masked_pixels, masked_smooth_l1, mse
from ssl_core.objectives.targets import Each, average_layers, feature_std
from ssl_core.schedules import linear
from ssl_core.views import ViewPolicy


class Data2Vec(MaskedModel):
    """Student on what is visible, moving-average teacher on everything.

    Momentum rises from `momentum` to `end_momentum` over the first `anneal` share of the run.
    `beta` > 0 takes the smooth L1 loss. "linear" as decoder replaces hidden tokens instead of
    dropping them.
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask: MaskKind = "visible_squares",
        mask_ratio: float = 0.8,
        mask_block: int = 3,
        mask_adjust: float = 0.07,
        masks: int = 16,
        decoder: Literal["conv", "linear"] = "conv",
        decoder_dim: int = 768,
        decoder_depth: int = 6,
        decoder_groups: int = 16,
        layers: int | None = None,
        layer_norms: Each = "instance",
        beta: float = 0.0,
        utterance: float = 0.0,
        momentum: float = 0.9998,
        end_momentum: float = 0.99999,
        anneal: float = 1.0,
    ) -> None:
        width, _ = token_widths(encoder)
        drop = decoder == "conv"
        head: nn.Module = PixelShuffleHead(width, width)
        if drop:
            head = ConvDecoder(
                width,
                width,
                dim=decoder_dim,
                depth=decoder_depth,
                groups=decoder_groups,
                axes=len(token_patch(encoder)),
            )
        mode: Literal["drop", "replace"] = "drop" if drop else "replace"
        super().__init__(
            encoder,
            views,
            masker=make_masker(mask, mask_ratio, mode=mode, block=mask_block, adjust=mask_adjust),
            decoder=head,
            target=self._taught,
            reconstruction=partial(_error, beta=beta),
            masks=masks,
        )
        if utterance:
            one_width(encoder, "data2vec's utterance term")
        self.teacher = Teacher(encoder=encoder)
        self.layers = layers
        self.layer_norms = layer_norms
        self.utterance = utterance
        self.momentum = linear(momentum, end_momentum, until=anneal)

    @property
    def backbone(self) -> nn.Module:
        return self.teacher.encoder

    def _taught(self, tokens: Tokens, mask: Mask) -> Tensor:
        teacher = self.teacher.encoder.eval()
        _, outputs = block_outputs(teacher, tokens)
        last = outputs if self.layers is None else outputs[-self.layers :]
        return average_layers(last, each=self.layer_norms, valid=tokens.valid)

    def loss(self, reps: list[Prediction]) -> Loss:
        frames = [self.reconstruction(rep.predicted, rep.target, rep.mask) for rep in reps]
        parts = {"reconstruction": torch.stack(frames).mean()}
        if self.utterance:
            pooled = [_utterance(rep) for rep in reps]
            parts["utterance"] = self.utterance * torch.stack(pooled).mean()
        first = reps[0]
        spread = {
            "target_std": feature_std(first.target, first.mask.hidden),
            "prediction_std": feature_std(first.predicted, first.mask.hidden),
        }
        return Loss.of(parts, spread)

    def after_step(self, step: Step) -> None:
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)


def _error(predicted: Tensor, target: Tensor, mask: Mask, *, beta: float) -> Tensor:
    scale = math.sqrt(predicted.shape[-1])
    if beta == 0:
        return masked_pixels(predicted, target, mask) * scale
    return masked_smooth_l1(predicted, target, mask, beta=beta) * scale


def _utterance(rep: Prediction) -> Tensor:
    """Squared error of the pooled student to the mean target of a sample's real tokens."""
    weight = torch.ones_like(rep.mask.hidden) if rep.valid is None else rep.valid
    share = weight.to(rep.target.dtype) / weight.sum(1, keepdim=True).clamp(min=1)
    target = torch.einsum("bn,bnd->bd", share, rep.target)
    return mse(rep.pooled, target) * math.sqrt(target.shape[-1])
