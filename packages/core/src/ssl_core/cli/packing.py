"""The command that packs data for fast reading."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_core.cli.app import App, command
from ssl_core.cli.screen import Screen


@command("pack data/ packed/ --decoded", "pack data/ shards/ --per-part 5000")
@click.argument("data", type=click.Path())
@click.argument("folder", type=click.Path())
@click.option("--decoded", is_flag=True, help="Pack decoded samples, memory-mapped, not files.")
@click.option("--per-part", default=1024, show_default=True, help="Records in a part.")
@click.option("--workers", default=2, show_default=True, help="Parts written at once.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="data.options.*")
def pack(
    app: App,
    screen: Screen,
    *,
    data: str,
    folder: str,
    decoded: bool,
    per_part: int,
    workers: int,
    settings: tuple[str, ...],
) -> None:
    """Pack DATA into FOLDER for fast reading.

    Files go into tar shards (WebDataset layout); with --decoded, decoded samples go into files
    that training maps into memory. Interrupted, the same command goes on where it stopped.
    """
    from ssl_core.runs.config import build
    from ssl_core.runs.packing import pack as pack_data

    domain = app.domain
    recipe = build(domain, flags={"data": {"path": data}}, assignments=settings)

    def told(done: int, parts: int) -> None:
        screen.progress(f"part {done} of {parts}" if done < parts else "")

    found = pack_data(
        domain,
        recipe.data,
        Path(folder),
        decoded=decoded,
        per_part=per_part,
        workers=workers,
        on_part=told,
    )
    for failure in found.failures[:20]:
        screen.say(f"left out {failure.key}: {failure.reason}")
    screen.say(
        f"{found.records} {domain.sample_kind} in {found.parts} parts, {found.bytes / 1e6:.1f} MB"
        + (f"; {len(found.failures)} could not be read" if found.failures else "")
    )
    screen.say(f"\nnext\n  {app.program} pretrain --data {folder}")
    screen.result(
        {
            "folder": folder,
            "records": found.records,
            "parts": found.parts,
            "resumed": found.resumed,
            "bytes": found.bytes,
            "corrupt": len(found.failures),
        }
    )


COMMANDS = (pack,)
