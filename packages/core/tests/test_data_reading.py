"""What readers share: checked options, facts of a few records, a file that comes back."""

from dataclasses import dataclass

import pytest

from ssl_core.data import ArraySource
from ssl_core.data.reading import (
    Options,
    load_facts,
    look_at_some,
    number,
    one_of,
    save_facts,
    whole_number,
)
from ssl_core.errors import CorruptSample, UserError


@dataclass(frozen=True)
class Some(Options):
    size: int = 3
    kind: str = "a"

    def __post_init__(self):
        whole_number("size", self.size, 1)
        one_of("kind", self.kind, ("a", "b"))


def test_options_are_checked_by_name_and_value():
    assert Some.of({"size": 5}) == Some(5)
    for options, message in (
        ({"sise": 5}, "size"),
        ({"size": 0}, "size: 0 is not an integer"),
        ({"size": True}, "True"),
        ({"kind": "c"}, "choose one of a, b"),
    ):
        with pytest.raises(UserError, match=message):
            Some.of(options)


@pytest.mark.parametrize("value", [0.4, 2.5, "1", True, float("nan")])
def test_numbers_lie_in_their_range(value):
    with pytest.raises(UserError, match=r"from 0.5 to 2"):
        number("x", value, 0.5, 2)


def test_numbers_may_be_open_above():
    number("x", 1e12, 0.5)


def looked(record):
    if record.payload % 2:
        raise CorruptSample("odd")
    return record.payload


def test_some_records_are_looked_at_in_their_order_and_unreadable_ones_passed_over():
    source = ArraySource(list(range(100)))
    found = look_at_some(source, 40, looked, what="number")
    assert found == sorted(found)
    assert 10 < len(found) < 30
    assert found == look_at_some(source, 40, looked, what="number")
    assert look_at_some(source, 1000, looked, what="number") == list(range(0, 100, 2))


def test_nothing_readable_is_an_error_with_the_last_reason():
    with pytest.raises(UserError, match=r"none of 2 records is a readable number \(odd\)"):
        look_at_some(ArraySource([1, 3]), 10, looked, what="number")
    with pytest.raises(UserError, match="empty"):
        look_at_some(ArraySource([]), 10, looked, what="number")


def test_facts_come_back_from_the_run_folder(tmp_path):
    save_facts(tmp_path, {"channels": 3}, Some(7))
    assert load_facts(tmp_path, what="thing") == ({"channels": 3}, {"size": 7, "kind": "a"})
    with pytest.raises(UserError, match="not the folder of a run on things"):
        load_facts(tmp_path / "other", what="thing")
