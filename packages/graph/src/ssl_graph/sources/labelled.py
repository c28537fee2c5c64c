"""What sources of graphs share: labels, and records made of a head and a payload."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ssl_core.batch import Record
from ssl_core.data.labels import encode_labels, label_of
from ssl_core.errors import UserError


def graph_labels(labels: Sequence[Any]) -> tuple[np.ndarray | None, list[str] | None]:
    """`encode_labels`, to which -1 is no label: labels -1 and 1, which mean two, are refused."""
    if {str(label) for label in labels if label is not None} == {"-1", "1"}:
        raise UserError("labels: -1 stands for an unknown label; write -1 and 1 as 0 and 1")
    return encode_labels(labels)


class LabelledGraphs(ABC):
    """A source of graphs, one label each (None where unknown)."""

    def __init__(self, labels: Sequence[Any]) -> None:
        self._label, self._classes = graph_labels(labels)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def head(self, index: int) -> Record:
        """Key, label and meta."""

    @abstractmethod
    def payload(self, index: int) -> Any:
        """What the reader makes the graph of."""

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self._classes

    def label(self, index: int) -> int | None:
        """The number of a graph's class."""
        return label_of(self._label, index)

    def __getitem__(self, index: int) -> Record:
        index = range(len(self))[index]
        return replace(self.head(index), payload=self.payload(index))
