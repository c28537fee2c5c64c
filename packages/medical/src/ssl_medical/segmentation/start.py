"""Where a segmentation network starts: its last layers fitted to the frozen encoder's maps.

Heads that start at random pull good features out of place before they are of use (Kumar et al.
2022), so classification starts at the probe; this is the same for voxels. Views of the labelled
scans go through the network once; its two last layers are then trained on single voxels of them,
which costs little, since no convolution is run again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Batch, Source
from ssl_core.errors import CorruptSample
from ssl_core.rng import Rng, key_of
from ssl_core.schedules import cosine
from ssl_medical.segmentation.labelled import LabelledReader
from ssl_medical.segmentation.network import Segmenter

_VIEWS, _AT_ONCE = 32, 8
_KEPT = 2**17
_STEPS, _VOXELS, _RATE = 300, 4096, 1e-2


def start_head(
    method: Segmenter, train: Source, reader: LabelledReader, device: torch.device, *, seed: int
) -> None:
    """Fits `method.out` by cross-entropy over classes weighed by the root of their rarity.

    Nothing else changes. Scans that cannot be read are left to the training that follows, which
    counts them.
    """
    method.to(device).eval()
    found = _voxels(method, train, reader, device, seed)
    if found is None:
        return
    maps, labels = found
    mean, std = maps.mean(0), maps.std(0).clamp(min=1e-6)
    layers = method.out[0], method.out[2]
    start = [p.detach().clone() for layer in layers for p in (layer.weight.flatten(1), layer.bias)]
    fitted = [p.requires_grad_() for p in start]
    counts = torch.bincount(labels, minlength=method.classes).clamp(min=1)
    weight = counts.rsqrt() / counts.rsqrt().mean()
    optimizer = torch.optim.AdamW(fitted, lr=_RATE, weight_decay=0.05)
    rate = cosine(_RATE, 0.0)
    rng = Rng.at(seed, 0, torch.zeros(1, dtype=torch.int64, device=device)).fold("head start")
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, _STEPS)
        rows = rng.fold(step).integers("voxels", _VOXELS, high=len(labels))[0]
        seen = F.relu(F.linear((maps[rows] - mean) / std, fitted[0], fitted[1]))
        loss = F.cross_entropy(F.linear(seen, fitted[2], fitted[3]), labels[rows], weight=weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        # The scale of the maps goes into the first layer.
        scaled = fitted[0] / std
        values = scaled, fitted[1] - scaled @ mean, fitted[2], fitted[3]
        for place, value in zip(method.out.parameters(), values, strict=True):
            place.copy_(value.view_as(place))


@torch.no_grad()
def _voxels(
    method: Segmenter, train: Source, reader: LabelledReader, device: torch.device, seed: int
) -> tuple[Tensor, Tensor] | None:
    """Dense maps `[N, D]` and labels `[N]` of voxels of some views of the labelled scans."""
    blocks = []
    for number in range(_VIEWS):
        record = train[number % len(train)]
        try:
            drawn = reader.draw(record, key_of("head start", seed, number))
        except CorruptSample:
            continue
        blocks.append(drawn)
    maps, labels = [], []
    for at in range(0, len(blocks), _AT_ONCE):
        data = reader.collate(blocks[at : at + _AT_ONCE]).to(device)
        ids = torch.arange(at, at + len(data), device=device)
        (view,) = method.views(Batch(data, ids, ids), Rng.at(seed, 0, ids))
        dense = method.dense(view)
        maps.append(dense.movedim(1, -1).flatten(0, -2).float())
        labels.append(view.params["labels"].flatten())
    if not maps:
        return None
    every, told = torch.cat(maps), torch.cat(labels)
    step = -(-len(told) // _KEPT)
    return every[::step], method.known(told[::step])
