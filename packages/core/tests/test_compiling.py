"""Which way is taken where numba is, is not, or does not load."""

import sys
from types import SimpleNamespace

import pytest
import torch

from ssl_core import compiling
from ssl_core.compiling import compiled, kept
from ssl_core.objectives import sinkhorn

LOOPS = "ssl_core.objectives.sinkhorn_loops"
CPU = torch.device("cpu")


@pytest.fixture
def _asked_anew():
    compiling._module.cache_clear()
    yield
    compiling._module.cache_clear()


def test_the_environment_turns_loops_off(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    for name in (LOOPS, "ssl_core.ops.loops"):
        assert compiled(name, CPU) is sys.modules[name]
        assert compiled(name, torch.device("cuda")) is None
    monkeypatch.setenv("SSL_COMPILED", "0")
    assert compiled(LOOPS, CPU) is None


@pytest.mark.usefixtures("_asked_anew")
def test_without_numba_torch_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    assert compiled(LOOPS, CPU) is None
    torch.testing.assert_close(sinkhorn(torch.zeros(6, 4)), torch.full((6, 4), 0.25))


@pytest.mark.usefixtures("_asked_anew")
def test_a_numba_that_does_not_load_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setitem(sys.modules, LOOPS, None)  # makes the import fail
    with pytest.warns(UserWarning, match="numba does not load"):
        assert compiled(LOOPS, CPU) is None
    assert compiled(LOOPS, CPU) is None


def test_loops_whose_code_cannot_be_kept_are_compiled_all_the_same() -> None:
    pytest.importorskip("numba")
    space: dict = {}
    exec("def double(x):\n    return 2 * x", space)  # of no file, beside which nothing is kept
    assert kept()(space["double"])(3) == 6


def test_the_first_compilation_is_announced_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    event = pytest.importorskip("numba.core.event")
    listeners: list = []
    monkeypatch.setattr(event, "register", lambda kind, listener: listeners.append(listener))
    compiling._announce.__wrapped__()
    for module, said in [("users.own", 0), (LOOPS, 1), ("ssl_core.ops.loops.resize", 1)]:
        function = SimpleNamespace(py_func=SimpleNamespace(__module__=module))
        for status in (event.EventStatus.START, event.EventStatus.END):
            listeners[0].notify(event.Event("numba:compile", status, {"dispatcher": function}))
        assert len(caplog.records) == said
    assert [r.message for r in caplog.records] == [
        "compiling loops for this processor: some seconds, once"
    ]
