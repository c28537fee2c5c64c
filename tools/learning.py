"""Do the recipes learn? Shipped recipes over several seeds, as a Markdown table.

    uv run python tools/learning.py                                  # every domain's default
    uv run python tools/learning.py vision --recipes simclr byol mae --probe
    uv run python tools/learning.py vision --recipes simclr --steps 800 --seeds 0 1 2
    uv run python tools/learning.py vision --write docs/methods.md   # into that page's table
    uv run python tools/learning.py medical --more few_label_dice    # also by a measure
    uv run python tools/learning.py --data-seed 1                    # on samples of another seed
    uv run python tools/learning.py graph --data motifs:900          # on other data of the domain
    uv run python tools/learning.py video --label speeds directions  # by tables beside the samples

Held-out accuracy in percent (mean ± sample standard deviation over seeds) of the raw input, the
untrained and the trained encoder: weighted k-NN, and with `--probe` a linear probe whose penalty
is chosen on a split of the training part. The last step is scored, never the best. Each finished
run is appended to `build/learning/<domain>.jsonl`, and a run that stands there is not made again:
a long table can be made in several goes. `--fresh` forgets what stands there. `--write` keeps
the rows that stand in the page's table for recipes not asked for; samples of another seed have a
table of their own on the page, between `<!-- learning table, data seed 1 -->` and its end.

`--more` names measures of the domain (`evaluation.more`) that have a `score`; each adds three
columns: the best of its rivals, the trained encoder, and the gain. Options go through `--set
evaluation.more.NAME.key=value`, for every recipe alike.

Samples that have several labels list each in a table (`directions.csv`). `--label` scores every
run by each table named, from one embedding, untrained → trained: what a method learned of motion
may be what it lost of appearance. Raw input and chance have lines of their own.

The recipes were chosen while looking at the embedded data (data seed 0); another data seed draws
other samples and another split, whose labels nobody has tuned on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ssl_core.environment  # noqa: F401  thread settings stand before torch is imported
from ssl_core.files import atomic_write, read_json

ROOT = Path(__file__).resolve().parents[1]
DOMAINS = sorted(path.parent.name[4:] for path in ROOT.glob("packages/*/src/ssl_*/domain.py"))
RIVALS = ("raw", "untrained", "trained")

Result = dict[str, Any]


class Table:
    """The runs of one domain, each kept in a file as soon as it is done."""

    def __init__(self, domain: str, arguments: argparse.Namespace, scratch: Path) -> None:
        self.domain, self.arguments, self.scratch = domain, arguments, scratch
        self.package = importlib.import_module(f"ssl_{domain}")
        self.file = ROOT / "build" / "learning" / f"{domain}.jsonl"
        if arguments.fresh:
            self.file.unlink(missing_ok=True)
        self.data: Path | None = None
        self.raw: dict[str, float] = {}

    def results(self, recipe: str) -> list[Result]:
        """One result a seed, from the file or from a run made now."""
        return [self._result(recipe, seed) for seed in self.arguments.seeds]

    def _result(self, recipe: str, seed: int) -> Result:
        given = self.arguments
        # Without defaults: a key that recipes get later makes no known run unknown.
        identity = {
            "recipe": self.package.build_recipe(
                recipe, steps=given.steps, seed=seed, settings=self._settings()
            ).model_dump(mode="json", exclude_defaults=True),
            "data_seed": given.data_seed,
            **({"data": given.data} if given.data else {}),
            **({"labels": given.label, "probe": given.probe} if given.label else {}),
        }
        for line in self.file.read_text().splitlines() if self.file.is_file() else []:
            known: Result = json.loads(line)
            if known["identity"] == identity:
                return known
        result = {"identity": identity, **self._run(recipe, seed)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as out:
            out.write(json.dumps(result) + "\n")
        print(f"{self.domain} {recipe} seed {seed}: {summarised(result)}", file=sys.stderr)
        return result

    def _settings(self) -> list[str]:
        # By tables, the raw input is probed once for all recipes: it has thousands of numbers.
        probe = ["evaluation.probe=true"] * (self.arguments.probe and not self.arguments.label)
        more = [f"evaluation.more.{name}={{}}" for name in self.arguments.more]
        return [*probe, *more, *self.arguments.set]

    def _run(self, recipe: str, seed: int) -> Result:
        tables = self._tables()
        began = time.perf_counter()
        run = self.package.pretrain(
            recipe,
            data=self._samples(),
            steps=self.arguments.steps,
            seed=seed,
            settings=self._settings(),
            out=self.scratch / f"{self.domain}-{recipe}-{seed}",
            progress=False,
        )
        summary = read_json(run.path / "summary.json")
        rivals = summary["rivals"]
        return {
            "score": summary["score"],
            "probe": {name: rivals[name].get("probe", {}).get("accuracy") for name in RIVALS},
            "more": {
                name: found["score"] for name, found in summary["more"].items() if "score" in found
            },
            "effective_rank": summary["effective_rank"],
            "parameters": summary["parameters"],
            "steps": summary["steps"],
            "step_ms": 1000 * summary["wall_seconds"] / summary["steps"],
            "labels": self._by_table(run, tables),
            "seconds": time.perf_counter() - began,
        }

    def _tables(self) -> dict[str, Path]:
        """The tables asked for; ends the program, before any run, where one is missing."""
        if not self.arguments.label:
            return {}
        from ssl_core.runs.parts import embedded_data

        folder = Path(self._samples() or embedded_data(getattr(self.package, self.domain.upper())))
        tables = {name: folder / f"{name}.csv" for name in self.arguments.label}
        for name, table in tables.items():
            if not table.is_file():
                there = ", ".join(sorted(path.stem for path in folder.glob("*.csv"))) or "none"
                sys.exit(f"--label {name}: {folder} has no such table; there: {there}")
        return tables

    def _by_table(self, run: Any, tables: dict[str, Path]) -> dict[str, Result]:
        """Score and probe of the three rivals by every table's labels, from one embedding."""
        if not tables:
            return {}
        import torch

        from ssl_core.data.heads import labels_of
        from ssl_core.runs.assessing import rivals_of
        from ssl_core.runs.parts import split_data

        domain = getattr(self.package, self.domain.upper())
        names = list(tables)
        compared = rivals_of(run, domain, path=str(tables[names[0]]))
        evaluator, found = compared.evaluator, {}
        if evaluator.corrupt:
            sys.exit(
                f"--label: {compared.path} has unreadable records: {list(evaluator.corrupt)[:3]}"
            )
        keys = _keys(compared.split)
        for name, table in tables.items():
            split = split_data(domain, run.recipe.data.at(table))
            if _keys(split) != keys:
                sys.exit(
                    f"--label {name}: lists other records than {names[0]}, or in another order"
                )
            bank = torch.from_numpy(labels_of(split.train)[evaluator.bank_rows])
            queries = torch.from_numpy(labels_of(split.heldout)[evaluator.query_rows])
            rivals = {
                rival: replace(features, bank_labels=bank, query_labels=queries)
                for rival, features in compared.rivals.items()
            }
            scores = {rival: evaluator.score(features) for rival, features in rivals.items()}
            found[name] = {
                "score": {"name": "knn_accuracy", **scores},
                "chance": rivals["raw"].chance(),
                "probe": {
                    rival: self._probed(evaluator, name, rival, features)
                    for rival, features in rivals.items()
                    if self.arguments.probe
                },
            }
        return found

    def _probed(self, evaluator: Any, label: str, rival: str, features: Any) -> float:
        """Accuracy of a linear probe; that of the raw input is the same for every recipe."""
        if rival != "raw":
            return float(evaluator.probe(features)["accuracy"])
        reading = json.dumps([label, evaluator.seed, dict(evaluator.reader.spec)], sort_keys=True)
        if reading not in self.raw:
            self.raw[reading] = float(evaluator.probe(features)["accuracy"])
        return self.raw[reading]

    def _samples(self) -> Path | str | None:
        """Other data than the embedded, which None means: asked for, or samples of another seed."""
        if self.arguments.data:
            return str(self.arguments.data)
        if self.arguments.data_seed == 0:
            return None
        if self.data is None:
            self.data = self.scratch / f"{self.domain}-samples"
            self.data.mkdir()
            domain = getattr(self.package, self.domain.upper())
            domain.samples(self.data, count=domain.default_count, seed=self.arguments.data_seed)
        return self.data


def _keys(split: Any) -> list[str]:
    from ssl_core.data.heads import head_of

    return [head_of(part, i).key for part in (split.train, split.heldout) for i in range(len(part))]


def summarised(result: Result) -> str:
    """One run in a line."""
    shown = [
        f"{name} " + ", ".join(f"{rival} {percent([each['score'][rival]])}" for rival in RIVALS)
        for name, each in (result.get("labels") or {result["score"]["name"]: result}).items()
    ]
    return f"{'; '.join(shown)} in {result['seconds']:.0f} s"


def percent(values: Sequence[float | None]) -> str:
    """Mean ± sample standard deviation of shares, in percent."""
    known = [100 * value for value in values if value is not None]
    return spread(known) if known else "-"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± sample standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def gains(results: Sequence[Result]) -> list[float]:
    """By how many points each run's k-NN beats the better of its rivals."""
    scores = [result["score"] for result in results]
    return [100 * (s["trained"] - max(s["raw"], s["untrained"])) for s in scores]


def label_rows(name: str, results: Sequence[Result], *, probe: bool) -> dict[str, str]:
    """Lines by several tables of labels: what the raw input and chance reach, and the recipe."""
    found = {"raw input": "raw", "most frequent class": "chance", name: ""}
    lines = {}
    for line, rival in found.items():
        cells = [line, str(len(results))] if line == name else [line, ""]
        for label in results[0]["labels"]:
            each = [r["labels"][label] for r in results]
            for kind in ("score", "probe")[: 1 + probe]:
                if rival == "chance":
                    cells.append(percent([e["chance"] for e in each]))
                elif rival:
                    cells.append(percent([e[kind][rival] for e in each]))
                else:
                    before, after = ([e[kind][r] for e in each] for r in RIVALS[1:])
                    cells.append(f"{percent(before)} → {percent(after)}")
        cells += running(results) if line == name else [""] * 4
        lines[line] = "| " + " | ".join(cells) + " |"
    return lines


def running(results: Sequence[Result]) -> list[str]:
    """The last cells of a line: effective rank and what the runs took."""
    return [
        spread([r["effective_rank"] for r in results]),
        f"{results[0]['steps']}",
        f"{statistics.median(r['step_ms'] for r in results):.0f}",
        f"{statistics.median(r['seconds'] for r in results):.0f}",
    ]


def row(name: str, results: Sequence[Result], *, probe: bool, more: Sequence[str] = ()) -> str:
    """A line of the table."""
    cells = [name, str(len(results))]
    cells += [percent([r["score"][rival] for r in results]) for rival in RIVALS]
    cells.append(spread(gains(results)))
    if probe:
        cells += [percent([r["probe"][rival] for r in results]) for rival in RIVALS]
    for measure in more:
        cells += measured([r["more"][measure] for r in results if measure in r.get("more", {})])
    return "| " + " | ".join([*cells, *running(results)]) + " |"


def measured(scores: Sequence[Result]) -> list[str]:
    """Best rival, trained encoder and the gain of runs that have a measure's score."""
    best = [score["rivals"][score["best"]] for score in scores]
    trained = [score["trained"] for score in scores]
    each = [mine - other for mine, other in zip(trained, best, strict=True)]
    return [percent(best), percent(trained), percent(each)]


def header(*, probe: bool, more: Sequence[str] = (), labels: Sequence[str] = ()) -> list[str]:
    """The table's first two lines."""
    names = ["recipe", "seeds"]
    if labels:
        kinds = ("k-NN", "linear")[: 1 + probe]
        names += [f"{label}: {kind}" for label in labels for kind in kinds]
    else:
        names += [*(f"k-NN {rival}" for rival in RIVALS), "gain over best rival"]
        names += [f"linear {rival}" for rival in RIVALS] if probe else []
    for measure in more:
        title = measure.replace("_", " ")
        names += [f"{title} rival", f"{title} trained", f"{title} gain"]
    names += ["effective rank", "steps", "ms a step", "seconds a run"]
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def marks_of(data_seed: int) -> tuple[str, str]:
    """Between which comments a page has the table of some samples."""
    name = "learning table" + (f", data seed {data_seed}" if data_seed else "")
    return f"<!-- {name} -->", f"<!-- end of {name} -->"


def merged(page: Path, lines: Sequence[str], marks: tuple[str, str]) -> list[str]:
    """The page's table with these rows in the place of those of the same name, others after."""
    text = page.read_text() if page.is_file() else ""
    stand = text.partition(marks[0])[2].partition(marks[1])[0].strip().splitlines()
    new = {line.split("|")[1]: line for line in lines[2:]}
    if stand[:2] != list(lines[:2]):
        if len(stand) > 2:
            sys.exit(f"{page}: the table there has other columns ({stand[0]}); empty it first")
        return list(lines)
    kept = [new.pop(line.split("|")[1], line) for line in stand[2:]]
    return [*lines[:2], *kept, *new.values()]


def write_into(page: Path, table: str, marks: tuple[str, str]) -> None:
    """Replaces what stands between the two marks of a page."""
    text = page.read_text() if page.is_file() else ""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        sys.exit(f"{page}: put the marks {' and '.join(marks)} where the table shall stand")
    atomic_write(page, f"{before}{begin}\n\n{table}\n\n{end}{after}")


def arguments_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("domains", nargs="*", metavar="DOMAIN", help=", ".join(DOMAINS))
    parser.add_argument("--recipes", nargs="+", default=["default"], metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="the same number for every recipe")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data-seed", type=int, default=0, help="0: the embedded data")
    parser.add_argument("--data", metavar="PATH", help="other data than the domain's samples")
    parser.add_argument("--label", nargs="+", default=[], metavar="TABLE", help="score by these")
    parser.add_argument("--probe", action="store_true", help="also fit linear probes")
    parser.add_argument("--more", nargs="+", default=[], metavar="MEASURE", help="also by these")
    parser.add_argument("--fresh", action="store_true", help="forget the runs made before")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into a page")
    arguments = parser.parse_args(words)
    for name in arguments.domains:
        if name not in DOMAINS:
            parser.error(f"{name!r} is not a domain; choose from {', '.join(DOMAINS)}")
    return arguments


def main() -> int:
    arguments = arguments_of()
    lines = header(probe=arguments.probe, more=arguments.more, labels=arguments.label)
    print(*lines, sep="\n", flush=True)
    worst = float("inf")
    chosen = arguments.domains or DOMAINS
    with tempfile.TemporaryDirectory() as scratch:
        for domain in chosen:
            table = Table(domain, arguments, Path(scratch))
            for recipe in arguments.recipes:
                results = table.results(recipe)
                name = recipe if len(chosen) == 1 else f"{domain} {recipe}"
                name += f" on {arguments.data}" if arguments.data else ""
                changed = [s for s in arguments.set if not s.startswith("evaluation.")]
                name += f", {', '.join(changed)}" if changed else ""
                if arguments.label:
                    made = label_rows(name, results, probe=arguments.probe)
                else:
                    made = {name: row(name, results, probe=arguments.probe, more=arguments.more)}
                new = [line for line in made.values() if line not in lines]
                lines += new
                print(*new, sep="\n", flush=True)
                worst = min(worst, statistics.mean(gains(results)))
    if arguments.write:
        marks = marks_of(arguments.data_seed)
        write_into(arguments.write, "\n".join(merged(arguments.write, lines, marks)), marks)
    return 0 if worst > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
