"""How well an image tower and a text tower find each other on held-out records."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Source
from ssl_core.data import Subset
from ssl_core.data.captions import CaptionReader
from ssl_core.data.decoded import decode_all
from ssl_core.data.heads import evenly
from ssl_core.domain import Domain
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.evaluation.retrieval import recall_at_k
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import Parts, build_parts, split_data


@torch.no_grad()
def caption_retrieval(
    run: Run,
    domain: Domain,
    device: torch.device | str,
    *,
    path: str | None = None,
    limit: int = 2000,
) -> dict[str, Any]:
    """How often an image finds its caption among all distinct held-out ones, and the reverse.

    R@1 and R@5 of both towers on up to `limit` held-out records. A caption that several records
    share may find any of them. Where captions name classes, the first number is zero-shot accuracy.
    `path` is other data with captions.
    """
    recipe, data = run.recipe, run.recipe.data
    data = data.at(path)
    split = split_data(domain, data)
    reader = domain.load_reader(run.reader_folder)
    if not isinstance(reader, CaptionReader):
        return {"words": "Captions were not sought: the run has none."}
    parts = build_parts(domain, recipe, reader, records=len(split.train))
    parts.method.load_state_dict(Checkpoints(run.checkpoints).weights(recipe.train.steps))
    parts.method.to(device).eval()
    heldout = Subset(split.heldout, evenly(len(split.heldout), limit))
    images, texts, ids = _embedded(parts, heldout, reader, device)
    if not len(images):
        return {"words": "Captions were not sought: no held-out record has one."}
    distinct, which = torch.unique(ids, dim=0, return_inverse=True)
    names = torch.arange(len(distinct), device=images.device)
    first = (which == names[:, None]).int().argmax(1)  # a row with each caption
    forth = recall_at_k(images, texts[first], which, names, ks=(1, 5))
    back = recall_at_k(texts[first], images, names, which, ks=(1, 5))
    return {
        "image_to_caption": {f"R@{k}": share for k, share in forth.items()},
        "caption_to_image": {f"R@{k}": share for k, share in back.items()},
        "captions": len(distinct),
        "images": len(images),
        "words": (
            f"Among {len(distinct)} captions, {forth[1]:.1%} of {len(images)} held-out images find "
            f"their own first (guessing: {1 / len(distinct):.1%})."
        ),
    }


def _embedded(
    parts: Parts, source: Source, reader: CaptionReader, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """Both towers' embeddings `[N, D]` and token ids of the records that have a caption."""
    method = parts.method
    width = method.projector.out_features
    rows: list[tuple[Tensor, Tensor, Tensor]] = [
        (torch.zeros(0, width), torch.zeros(0, width), torch.zeros(0, reader.length).long())
    ]
    empty = reader.encode("").to(device)
    for batch in decode_all(source, reader, device=device, workers=0):
        ids = batch.data.ids
        has = (ids != empty).any(1)
        image = method.projector(method.encoder(parts.views.plain(batch)).pooled)  # type: ignore[operator]
        text = method.tower_projector(method.tower(ids).pooled)  # type: ignore[operator]
        rows.append((image[has].cpu(), text[has].cpu(), ids[has].cpu()))
    images, texts, every = (torch.cat(part) for part in zip(*rows, strict=True))
    return images, texts, every
