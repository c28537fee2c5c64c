"""What methods and encoders pass around is taken apart and put together without loss."""

import weakref
from collections import namedtuple
from dataclasses import dataclass

import torch

from ssl_core.engine.trees import mapped, tensors, with_tensors

Named = namedtuple("Named", "left right")


@dataclass(frozen=True)
class Pair:
    first: torch.Tensor
    rest: object
    note: str = "kept"


def tree():
    x = [torch.full((1,), float(i)) for i in range(6)]
    return {
        "pair": Pair(x[0], [x[1], None]),
        "named": Named(x[2], (x[3], "text")),
        "list": [x[4], {"deep": x[5]}],
    }


def test_tensors_come_in_a_fixed_order():
    assert torch.cat(tensors(tree())).tolist() == [0, 1, 2, 3, 4, 5]
    assert tensors("no tensor") == []
    assert tensors([]) == []


def test_taking_apart_keeps_nothing_alive():
    given = tree()
    first = weakref.ref(given["pair"].first)
    tensors(given)
    del given
    assert first() is None


def test_the_same_structure_takes_other_tensors():
    found = with_tensors(tree(), iter([-x for x in tensors(tree())]))
    assert torch.cat(tensors(found)).tolist() == [0, -1, -2, -3, -4, -5]
    assert isinstance(found["pair"], Pair)
    assert found["pair"].note == "kept"
    assert found["pair"].rest[1] is None
    assert isinstance(found["named"], Named)
    assert found["named"].right[1] == "text"
    assert list(found) == ["pair", "named", "list"]


def test_children_are_changed_one_level_down():
    assert mapped([1, (2, 3)], lambda child: child) == [1, (2, 3)]
    assert mapped(Named(1, 2), lambda child: child + 1) == Named(2, 3)
    assert mapped({"a": 1}, str) == {"a": "1"}
    assert mapped(5, str) == 5
