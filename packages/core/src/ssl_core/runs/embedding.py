"""Embeds a source into files, part by part: with progress, and without starting over.

Finished parts lie in `<out>.parts/` until all are there; the same command goes on after the last
one. Vectors are never all in memory at once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_core.batch import Source
from ssl_core.data import Failure
from ssl_core.data.fetch import spec_digest
from ssl_core.errors import UserError
from ssl_core.evaluation.embed import Embedding
from ssl_core.files import read_json, write_json
from ssl_core.runs.model import Model
from ssl_core.runs.tables import check_table, write_embedding
from ssl_core.tensors import read_facts, read_tensors, write_tensors

PART = 8192
"""Records of a part."""


@dataclass(frozen=True)
class Embedded:
    """What was written: files, vectors and their width, and records that could not be read."""

    files: list[Path]
    count: int
    dim: int
    resumed: int
    """Records that an earlier, interrupted call had embedded."""
    failures: list[Failure]


def embed_to(
    model: Model,
    source: Source,
    out: Path,
    *,
    batch_size: int = 256,
    part: int = PART,
    advance: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Writes the embeddings of a source as `write_embedding` does.

    `advance(done, total)` is told of every part. Raises `UserError` where `out` cannot be written,
    or where its parts are of another encoder, data or part size.
    """
    check_table(out)
    folder = out.with_name(out.name + ".parts")
    identity = {
        "weights": weights_digest(model.encoder),
        "reader": spec_digest(model.reader),
        "views": model.recipe.views.model_dump(mode="json"),
        "data": source.fingerprint(),
        "part": part,
    }
    _claim(folder, identity)
    total, resumed = len(source), 0
    starts = range(0, total, part)
    for start in starts:
        file = folder / f"{start:012d}.safetensors"
        stop = min(start + part, total)
        if file.is_file():
            resumed += stop - start
        else:
            failures: list[Failure] = []
            found = model.embed_source(
                source,
                rows=np.arange(start, stop),
                batch_size=batch_size,
                on_corrupt=failures.append,
            )
            _save(file, found, failures)
        if advance is not None:
            advance(stop, total)
    files = [folder / f"{start:012d}.safetensors" for start in starts]
    facts = [read_facts(file) for file in files]
    count = sum(len(each["keys"]) for each in facts)
    written = write_embedding(map(_load, files), out, count=count, dim=model.dim)
    shutil.rmtree(folder)
    failures = [Failure(*entry) for each in facts for entry in each["failures"]]
    return Embedded(written, count, model.dim, resumed, failures)


def weights_digest(encoder: nn.Module) -> str:
    """A hash of every number of a network."""
    state = hashlib.blake2b(digest_size=8)
    for name, tensor in encoder.state_dict().items():
        state.update(name.encode())
        state.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return state.hexdigest()


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Makes the folder of parts, or checks that it is of this very work."""
    file = folder / "identity.json"
    expected = json.loads(json.dumps(identity))
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, identity)
        return
    if (found := read_json(file)) != expected:
        changed = [name for name in expected if found.get(name) != expected[name]]
        raise UserError(
            f"out: {folder} holds an unfinished embedding with other {', '.join(changed)}; "
            "remove that folder, or give another file"
        )


def _save(file: Path, found: Embedding, failures: list[Failure]) -> None:
    tensors = {"features": found.features, "labels": found.labels, "index": found.index}
    entries = [[f.index, f.key, f.reason] for f in failures]
    write_tensors(file, tensors, {"keys": list(found.keys), "failures": entries})


def _load(file: Path) -> Embedding:
    tensors = read_tensors(file)
    keys = tuple(read_facts(file)["keys"])
    return Embedding(tensors["features"], tensors["labels"], keys, tensors["index"])


def told_on_stderr(seconds: float = 5.0) -> Callable[[int, int], None]:
    """Prints how far an embedding is: at most one line every `seconds`, and the last one."""
    began = last = time.monotonic()
    first: list[int] = []

    def advance(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        first.append(done)
        if done < total and now - last < seconds:
            return
        last = now
        rate = (done - first[0]) / max(now - began, 1e-9)
        left = f" · {rate:.0f}/s · {(total - done) / rate:.0f} s left" if rate > 0 else ""
        print(f"embedded {done}/{total}{left}", file=sys.stderr, flush=True)

    return advance
