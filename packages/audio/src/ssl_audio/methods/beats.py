"""BEATs (Chen et al., ICML 2023): predict the codes of hidden patches.

    L = mean over hidden patches of -log softmax(W h_i)[code_i]

The encoder sees the visible patches alone, a small transformer predicts the codes of all places.
In the first iteration codes are nearest random directions of randomly projected patches (BEST-RQ),
about which nothing is learned. In later ones a tokenizer gives them that was distilled from the
encoder before (`teacher`, a finished run of `beats_tokenizer`). Guessing costs log(codes).
"""

from __future__ import annotations

from torch import Tensor, nn

from ssl_audio.quantisers import RandomProjectionQuantiser
from ssl_core.encoder import Tokens
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss
from ssl_core.methods.beit import codes_used
from ssl_core.methods.masked import MaskedModel, Prediction, token_widths
from ssl_core.networks.decoders import TransformerDecoder
from ssl_core.networks.masks import Mask, RandomMasker
from ssl_core.objectives import masked_token_cross_entropy
from ssl_core.views import ViewPolicy


class BEATs(MaskedModel):
    """A token encoder in drop mode and a label predictor; `codes` None are the teacher's."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.75,
        teacher: nn.Module | None = None,
        codes: int | None = 1024,
        code_dim: int = 16,
        decoder_dim: int = 512,
        decoder_depth: int = 3,
        decoder_heads: int = 8,
    ) -> None:
        width, token_dim = token_widths(encoder)
        if codes is None and teacher is None:
            raise ValueError("codes: give their number, or a teacher whose codes are to be told")
        # Where a run is only used, another network without codes stands in for its teacher.
        number: int = getattr(getattr(teacher, "codebook", None), "codes", codes or 1)
        super().__init__(
            encoder,
            views,
            masker=RandomMasker(mask_ratio, mode="drop"),
            decoder=TransformerDecoder(
                width, number, dim=decoder_dim, depth=decoder_depth, heads=decoder_heads
            ),
            target=self._codes,
            reconstruction=masked_token_cross_entropy,
        )
        self.codes = number
        self.teacher = None if teacher is None else teacher.requires_grad_(False)
        self.tokenizer = (
            RandomProjectionQuantiser(token_dim, codes=number, dim=code_dim)
            if teacher is None
            else None
        )

    def _codes(self, tokens: Tokens, mask: Mask) -> Tensor:
        if self.teacher is None:
            assert self.tokenizer is not None
            ids: Tensor = self.tokenizer(tokens.values)
            return ids
        if not hasattr(self.teacher, "name"):
            raise UserError(
                "method.teacher: BEATs' later iterations need codes; give a run of method "
                "beats_tokenizer"
            )
        if self.teacher.token_dim != tokens.values.shape[2]:
            raise UserError(
                f"method.teacher: its patches hold {self.teacher.token_dim} numbers, the "
                f"encoder's {tokens.values.shape[2]}; give a tokenizer with the same patches"
            )
        named: Tensor = self.teacher.eval().name(tokens)  # type: ignore[operator]
        return named

    def loss(self, reps: list[Prediction]) -> Loss:
        total = super().loss(reps).total
        used = codes_used(reps[0].target, self.codes)
        return Loss.of({"codes": total}, {"codes_used": used})
