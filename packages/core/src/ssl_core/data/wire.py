"""Messages between the training and its worker processes: length-framed pickles over pipes.

Tensors travel as plain bytes beside the pickle (protocol 5, out of band): no shared memory to
leak when a worker is killed, no file descriptors to run out of.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_FRAME = struct.Struct("<Q")


def _tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(array).view(dtype)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        """Dense CPU tensors as NumPy arrays, whose bytes leave the pickle."""
        plain = isinstance(obj, Tensor) and type(obj) is Tensor and obj.layout == torch.strided
        if not plain or obj.requires_grad or obj.device.type != "cpu":
            return NotImplemented
        whole = obj.contiguous()
        if whole.dim() == 0 or whole.dtype not in _AS_BYTES:
            return NotImplemented
        return _tensor, (whole.view(_AS_BYTES[whole.dtype]).numpy(), whole.dtype)


_AS_BYTES = {
    dtype: {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    for dtype in (
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    )
}


def send(stream: io.BufferedWriter, message: Any) -> None:
    """Writes one message."""
    buffers: list[pickle.PickleBuffer] = []
    text = io.BytesIO()
    _Pickler(text, protocol=5, buffer_callback=buffers.append).dump(message)
    parts = [text.getbuffer(), *(buffer.raw() for buffer in buffers)]
    sizes = [part.nbytes for part in parts]
    stream.write(_FRAME.pack(len(parts)) + b"".join(map(_FRAME.pack, sizes)))
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: io.BufferedReader) -> Any:
    """Reads one message; raises `EOFError` when the other side is gone."""
    (count,) = _FRAME.unpack(_exactly(stream.readinto, _FRAME.size))
    sizes = _exactly(stream.readinto, _FRAME.size * count)
    parts = [_exactly(stream.readinto, size) for (size,) in _FRAME.iter_unpack(sizes)]
    return pickle.loads(parts[0], buffers=parts[1:])


def _exactly(readinto: Callable[[memoryview], int], size: int) -> bytearray:
    """`size` bytes in writable memory, which tensors made on top of them need."""
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        count = readinto(view[got:])
        if not count:
            raise EOFError("the other side of the pipe is gone")
        got += count
    return data
