"""Commands that prove: verify."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ssl_core.cli.app import App, command
from ssl_core.cli.screen import Screen
from ssl_core.errors import SSLError, unknown

if TYPE_CHECKING:
    from ssl_core.domain import Domain


@command("verify", "verify simclr barlow_twins --ranks 2")
@click.argument("names", nargs=-1)
@click.option(
    "--ranks",
    multiple=True,
    type=click.IntRange(min=2),
    default=(2, 4),
    show_default=True,
    help="Replicas to compare with one process; may be repeated.",
)
def verify(app: App, screen: Screen, *, names: tuple[str, ...], ranks: tuple[int, ...]) -> None:
    """Check on this machine that replicas train as one process.

    NAMES are objectives or methods (their objectives); default: all. Every form of each runs in
    float64 on 2 and 4 processes; the averaged gradient must be that of one process with the whole
    batch, batch statistics, queues and centres included.
    """
    from ssl_core.verification import TOLERANCE, verify

    chosen = [one for name in names for one in _objectives(app.domain, name)]
    findings = verify(dict.fromkeys(chosen), worlds=ranks)
    by_name: dict[str, list[str]] = {}
    for finding in findings:
        mark = "" if finding.exact else " !"
        row = by_name.setdefault(finding.name, [finding.name])
        row.append(f"{finding.value:.0e} {finding.gradient:.0e}{mark}")
    screen.table(
        ["relative error of value, gradient", *[f"{w} ranks" for w in ranks]], [*by_name.values()]
    )
    wrong = [finding for finding in findings if not finding.exact]
    screen.say(f"\n{len(findings) - len(wrong)} of {len(findings)} exact to {TOLERANCE:.0e}")
    screen.result(
        {
            "tolerance": TOLERANCE,
            "exact": not wrong,
            "findings": [
                {
                    "name": f.name,
                    "objective": f.objective,
                    "ranks": f.world,
                    "value_error": f.value,
                    "gradient_error": f.gradient,
                    "exact": f.exact,
                }
                for f in findings
            ],
        }
    )
    if wrong:
        raise SSLError(f"verify: {', '.join(dict.fromkeys(f.name for f in wrong))} not exact")


def _objectives(domain: Domain, name: str) -> list[str]:
    """A name as objectives: itself, or those that the method's file imports."""
    from ssl_core.verification import objective_names

    known = objective_names()
    if name in known:
        return [name]
    if name not in domain.methods:
        raise unknown("verify", name, [*known, *domain.methods])
    module = vars(sys.modules[domain.methods.load(name).__module__])
    used = [one.removesuffix("_parts") for one in module if one.removesuffix("_parts") in known]
    if not used:
        raise SSLError(f"verify: method {name!r} uses no objective of the shared set")
    return used


COMMANDS = (verify,)
