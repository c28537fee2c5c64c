"""The Audio Spectrogram Transformer as transformers has it, so that weights interchange.

Gong et al. (Interspeech 2021): overlapping 16 x 16 patches every 10 cells, a class and a
distillation token, learned positions for one input size. It sees views of the spec's frames only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.networks.dropout import key_dropout


class AST(nn.Module):
    """transformers' `ASTModel` behind `Features`; pooled is the mean of its two first tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        from transformers import ASTModel

        self.model = ASTModel(config)
        key_dropout(self.model)
        self.embed_dim = int(config.hidden_size)
        self.frames = int(config.max_length)
        self.grid = tuple(
            (size - config.patch_size) // stride + 1
            for size, stride in (
                (config.num_mel_bins, config.frequency_stride),
                (config.max_length, config.time_stride),
            )
        )

    def forward(self, data: Tensor) -> Features:
        if data.shape[-1] != self.frames:
            raise UserError(
                f"encoder ast: built for {self.frames} frames, got {data.shape[-1]}; give views "
                "without `seconds`, or use spec_vit"
            )
        # [B, 1, F, T] -> [B, T, F], as transformers' feature extractor hands it over
        hidden: Tensor = self.model(data[:, 0].transpose(1, 2)).last_hidden_state
        return Features(hidden[:, :2].mean(1), hidden[:, 2:], self.grid, prefix=hidden[:, :2])

    def transformers_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(weights, config) that `ASTModel.from_pretrained` takes."""
        return self.model.state_dict(), self.model.config.to_dict()


def ast(
    spec: Mapping[str, Any],
    *,
    dim: int,
    depth: int,
    heads: int,
    stride: int = 10,
    dropout: float = 0.0,
) -> AST:
    """An AST for the spec's mel bands and frames; `stride` 16 leaves no overlap."""
    from transformers import ASTConfig

    config = ASTConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
        patch_size=16,
        frequency_stride=stride,
        time_stride=stride,
        max_length=int(spec["frames"]),
        num_mel_bins=int(spec["mels"]),
    )
    return AST(config)


ast_tiny = partial(ast, dim=192, depth=12, heads=3)
ast_small = partial(ast, dim=384, depth=12, heads=6)
ast_base = partial(ast, dim=768, depth=12, heads=12)
