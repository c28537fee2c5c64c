"""The errors a user meets, and the exit code each one ends a command with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SSLError(Exception):
    """Base of every error raised on purpose; `exit_code` is what a command returns."""

    exit_code = 1


class UserError(SSLError):
    """Wrong input: the message names the argument, its value and what to do."""

    exit_code = 2


class TrainingAborted(SSLError):
    """Training cannot go on: non-finite losses in a row, or too many corrupt samples."""

    exit_code = 3


class Preempted(SSLError):
    """A signal asked the run to stop; everything was saved first."""

    exit_code = 143


class CorruptSample(Exception):
    """A record that cannot become a sample; the loader replaces and reports it."""


def unknown(what: str, name: str, allowed: Iterable[str]) -> UserError:
    """An error for a name that does not exist, with the nearest existing one.

    Arguments: `what` names the argument ("method"), `name` is what was given and `allowed`
    the names that exist. Returns the error, for the caller to raise.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}? Available" if near else "; available"
    shown = ", ".join(names) if len(names) <= 40 else ", ".join(names[:40]) + ", ..."
    return UserError(f"{what}: {name!r} is not known{hint}: {shown}")
