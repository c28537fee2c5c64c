"""GraphMAE2 (Hou et al., WWW 2023): rebuild features from randomly re-masked codes, and latents.

    L = sum_k SCE_alpha(x_v, decoder(remask_k(codes))_v) over hidden v
        + latent * SCE_1(teacher(x)_u, predictor(projector(codes))_u) over kept u

Codes of a random share of nodes are replaced by a decoder mask vector, `remasks` times over; the
teacher (encoder and projector) sees the graph unmasked. `remask="hidden"` with one re-masking and
latent 0 is GraphMAE. Masks and replacements happen within each graph, as in `graphmae`.

Networks too large for one step come as local clusters (the sampler `local`): u is then the root of
each cluster, and student and teacher each lose a share `edge_drop` of its edges, while the decoder
sees them all, as in the release. Its teacher stands still for the first epochs on ogbn-arxiv; here
it always follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as copy_with
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.methods.masked import token_widths
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.masks import RandomMasker
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import scaled_cosine
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy
from ssl_graph.encoders.decoder import RemaskDecoder
from ssl_graph.graph import GraphBatch
from ssl_graph.methods.graphmae import swap_some
from ssl_graph.views.ops import OPS

Reps = tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor, Tensor]


class GraphMAE2(Method):
    """Encoder in replace mode, one GNN decoder, projector and predictor, teacher; one view."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.5,
        replace: float = 0.05,
        alpha: float = 3.0,
        remask: Literal["random", "hidden"] = "random",
        remask_ratio: float = 0.5,
        remasks: int = 3,
        latent: float = 1.0,
        edge_drop: float = 0.0,
        hidden: int = 256,
        dim: int = 128,
        momentum: float = 0.996,
        decoder: Literal["gin", "gcn", "sage", "gat"] = "gin",
    ) -> None:
        super().__init__(encoder, views)
        if remask not in ("random", "hidden"):
            raise ValueError(f"remask must be 'random' or 'hidden', got {remask!r}")
        if remasks < 1 or (remask == "hidden" and remasks > 1):
            raise ValueError(f"remasks must be at least 1, and 1 for 'hidden', got {remasks}")
        if not 0 <= edge_drop < 1:
            raise ValueError(f"edge_drop must lie in [0, 1), got {edge_drop}")
        width, features = token_widths(encoder)
        encoder.enable_mask_token()  # type: ignore[operator]
        self.masker = RandomMasker(mask_ratio, mode="replace")
        edge_dim = int(getattr(encoder, "edge_dim", 0))
        self.decoder = RemaskDecoder(
            width, features, layer=decoder, edge_dim=edge_dim, token=remask == "random"
        )
        self.projector = MLPHead(width, dim, hidden=hidden, layers=2)
        self.predictor = MLPHead(dim, dim, hidden=hidden, layers=2)
        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        self.replace, self.alpha, self.latent = replace, alpha, latent
        self.remask, self.remask_ratio, self.remasks = remask, remask_ratio, remasks
        self.momentum, self.edge_drop = momentum, edge_drop

    def encode(self, views: Sequence[View]) -> Reps:
        view = views[0]
        graphs: GraphBatch = view.data
        tokens = self.encoder.tokenize(graphs)  # type: ignore[operator]
        mask = self.masker(view.rng, tokens.values.shape[1], maskable=tokens.valid)
        shown = swap_some(tokens, mask, view.rng, share=self.replace) if self.replace else tokens
        shown = copy_with(shown, context=self._thinned(graphs, view.rng.fold("student")))
        with dropout_keys(view.rng):
            features = self.encoder.encode(shown, mask)  # type: ignore[operator]
        self.monitored = features.pooled.detach()
        rebuilt = []
        for number in range(self.remasks):
            again = mask.hidden
            if self.remask == "random":
                count = tokens.values.shape[1]
                drawn = view.rng.fold("remask", number)
                again = drawn.bernoulli("hidden", count, p=self.remask_ratio) & tokens.valid
            rebuilt.append(self.decoder(features, mask, tokens, remasked=again))
        with torch.no_grad():
            whole = self.teacher.encoder(self._thinned(graphs, view.rng.fold("teacher")))
        if graphs.rooted:
            rows = (features.pooled, whole.pooled)
            kept = torch.ones_like(mask.hidden[:, :1])
        else:
            rows = (graphs.flat(features.tokens), graphs.flat(whole.tokens))
            kept = tokens.valid & ~mask.hidden
        student = self.predictor(self.projector(rows[0]))
        with torch.no_grad():
            target = self.teacher.projector(rows[1])
        if graphs.rooted:
            latents = (student[:, None], target[:, None])
        else:
            latents = (graphs.dense(student)[0], graphs.dense(target)[0])
        return rebuilt, tokens.values, mask.hidden, *latents, kept

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """The graphs with hidden nodes pale, and with what the decoder makes of them."""
        tokens = self.encoder.tokenize(views[0].data)  # type: ignore[operator]
        rebuilt, values, hidden, *_ = self.encode(views)
        where = hidden[..., None]
        guessed = torch.where(where, rebuilt[0].clamp(min=0).to(values.dtype), values)
        rebuild = self.encoder.rebuild
        return {
            "hidden": rebuild(tokens, values.masked_fill(where, torch.nan)),  # type: ignore[operator]
            "predicted": rebuild(tokens, guessed),  # type: ignore[operator]
        }

    def _thinned(self, graphs: GraphBatch, rng: Rng) -> GraphBatch:
        if not self.edge_drop:
            return graphs
        drop = OPS["edge_drop"]
        return drop.apply(graphs, drop.sample(rng, graphs, self.edge_drop))

    def loss(self, reps: Reps) -> Loss:
        rebuilt, values, hidden, student, target, kept = reps
        errors = [scaled_cosine(x, values, alpha=self.alpha, weight=hidden) for x in rebuilt]
        latent = scaled_cosine(student, target, alpha=1.0, weight=kept)
        parts = {"reconstruction": torch.stack(errors).sum(), "latent": self.latent * latent}
        return Loss.of(parts)

    def after_step(self, step: Step) -> None:
        self.teacher.update(self, self.momentum, step.finite)
