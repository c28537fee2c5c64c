"""From a recipe to a finished run folder: the order of things, once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ssl_core.batch import Reader, Source
from ssl_core.data import Loader, Stream
from ssl_core.data.buckets import BucketedStream
from ssl_core.distributed import rank, world_size
from ssl_core.domain import Domain
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.engine.fit import Callback, FitResult, fit
from ssl_core.engine.health import judge
from ssl_core.engine.parallel import barrier, choose_device, launched_world, process_group
from ssl_core.engine.parallelize import check_layout
from ssl_core.errors import Preempted, UserError
from ssl_core.evaluation.rivals import Evaluator
from ssl_core.files import atomic_folder, atomic_write, read_json, to_json, write_json
from ssl_core.recipe import Recipe
from ssl_core.runs.config import differences, save_recipe
from ssl_core.runs.folder import Run, locate
from ssl_core.runs.gallery import places, write_gallery
from ssl_core.runs.measures import measure_more
from ssl_core.runs.parts import Parts, Split, build_parts, fitted_reader, split_data
from ssl_core.runs.picturing import ROWS, write_pictures
from ssl_core.runs.starting import Watch, keep_start, started, tell
from ssl_core.runs.summary import compare, machine, measure, verdict, versions
from ssl_core.runs.tracking import trackers
from ssl_core.tensors import read_tensors, write_tensors


def train(
    domain: Domain,
    recipe: Recipe,
    *,
    out: Path | None = None,
    source: Source | None = None,
    callbacks: Sequence[Callback] = (),
    track: Sequence[str] = (),
) -> Run:
    """Trains what is left to train in `out`, evaluates, writes summary and report.

    The same recipe in the same folder continues, or returns at once when it is finished. Under a
    launcher every rank calls this; only rank 0 evaluates and writes.
    """
    device = choose_device(recipe.train.device)
    check_layout(recipe.train, recipe.optimizer, device, world=launched_world())
    with process_group(device, timeout=recipe.train.stall_timeout):
        run = claim(recipe, out)
        if run.finished:
            return run
        split = split_data(domain, recipe.data, source)
        reader = _reader(domain, recipe, run, split)
        if rank() == 0:
            keep_start(run, recipe)
        barrier()
        parts = build_parts(domain, recipe, reader, records=len(split.train), start=run.start_file)
        evaluator = make_evaluator(recipe, split, parts, device)
        main = rank() == 0
        report = getattr(parts.encoder, "weight_report", None)
        if main and recipe.start.weights is not None and report is not None:
            tell(run, report)
        baselines = _baselines(run, evaluator, parts, split) if main else None
        watch = Watch.of(recipe, evaluator, None if baselines is None else baselines.untrained)
        sinks = trackers(track, run, recipe) if main else []
        try:
            result = fit(
                parts.method,
                _loader(recipe, _prepared(domain, recipe, split, reader), reader, run, device),
                train=recipe.train,
                optimizer=recipe.optimizer,
                out=run.path,
                device=device,
                identity={"data": split.train.fingerprint()},
                score=evaluator.score_of if recipe.evaluation.every else None,
                score_every=recipe.evaluation.every,
                start_from=recipe.start,
                halt=watch,
                callbacks=[*callbacks, *sinks],
            )
        except Preempted as stop:
            command = f"ssl-{domain.name} resume {run.path}"
            raise Preempted(f"{stop}; continue with `{command}`") from stop
        if baselines is not None:
            if recipe.train.parallel == "fsdp" and world_size() > 1:
                parts = _whole(domain, recipe, reader, run, result.steps)
            _finish(run, recipe, parts, evaluator, baselines, result, domain, watch)
    return run


def _whole(domain: Domain, recipe: Recipe, reader: Reader, run: Run, steps: int) -> Parts:
    """Networks in one piece, with the final weights: those that trained are split over ranks."""
    parts = build_parts(domain, recipe, reader)
    newest = Checkpoints(run.checkpoints).path(steps)
    parts.method.backbone.load_state_dict(read_tensors(newest / "model.safetensors"))
    return parts


def claim(recipe: Recipe, out: Path | None) -> Run:
    """The folder this recipe may use: `out`, or the first free one below `runs/`.

    Rank 0 decides for all. Raises `UserError` where another recipe's run is in the way.
    """
    if rank() == 0:
        try:
            chosen: Any = _claim_here(recipe, out).path
        except UserError as error:
            chosen = error
    if world_size() > 1:
        box = [chosen if rank() == 0 else None]
        dist.broadcast_object_list(box, src=0)
        chosen = box[0]
    if isinstance(chosen, UserError):
        raise chosen
    return Run(chosen)


def _claim_here(recipe: Recipe, out: Path | None) -> Run:
    run = Run(out) if out is not None else _free_folder(recipe)
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"out: {str(run.path)!r} is a file; give a folder")
    if run.exists and run.started:
        changed = differences(run.recipe, recipe)
        if changed:
            raise UserError(
                f"out: {str(run.path)!r} holds a run with another recipe ("
                + "; ".join(changed)
                + "). Give another --out, the same recipe to continue it, or allow the change "
                "by name: --set train.allow=[batch_size]"
            )
        if recipe.train.allow:
            save_recipe(recipe, run.recipe_file)
            if run.finished and recipe.train.steps > run.summary["steps"]:
                run.summary_file.unlink()  # it goes on, perhaps on new data
        return run
    # What an attempt left that failed before its first step (a wrong option, bad data) is stale.
    shutil.rmtree(run.reader_folder, ignore_errors=True)
    run.baselines_file.unlink(missing_ok=True)
    run.path.mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, run.recipe_file)
    return run


def _free_folder(recipe: Recipe) -> Run:
    """runs/<domain>-<method>, or with a number: the first unused, or an unfinished equal run."""
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        method = recipe.method.name.replace(":", ".")  # of one's own: module:Method
        run = Run(Path("runs", f"{recipe.domain}-{method}{suffix}"))
        if not run.path.exists() or (run.exists and not run.started):
            return run
        if run.exists and not run.finished and not differences(run.recipe, recipe):
            return run
        number += 1


def _reader(domain: Domain, recipe: Recipe, run: Run, split: Split) -> Reader:
    """The run's reader, fitted to the training part when the run starts."""
    if rank() == 0:
        if not run.reader_folder.is_dir():
            fitted = fitted_reader(domain, split.train, recipe.data)
            with atomic_folder(run.reader_folder) as temporary:
                fitted.save(temporary)
        facts = {
            "domain": locate(domain),
            "package": domain.package,
            "sample_kind": domain.called(domain.load_reader(run.reader_folder).spec),
            "data": {"path": recipe.data.path, **split.facts()},
            "world": world_size(),
        }
        write_json(run.facts_file, facts)
    barrier()
    return domain.load_reader(run.reader_folder)


def make_evaluator(
    recipe: Recipe, split: Split, parts: Parts, device: torch.device, *, seed: int | None = None
) -> Evaluator:
    """The evaluator of a recipe's split."""
    return Evaluator(
        split.train,
        split.heldout,
        parts.reader,
        parts.views,
        recipe.evaluation,
        batch_size=min(256, max(32, recipe.train.batch_size)),
        device=device,
        seed=recipe.train.seed if seed is None else seed,
        workers=recipe.data.workers,
    )


def _prepared(domain: Domain, recipe: Recipe, split: Split, reader: Reader) -> Source:
    """The training part as the domain wants it read; rank 0 makes what has to be made."""
    if rank() == 0:
        source = domain.prepared(split.train, reader, recipe.data)
    barrier()
    return source if rank() == 0 else domain.prepared(split.train, reader, recipe.data)


def _loader(
    recipe: Recipe, source: Source, reader: Reader, run: Run, device: torch.device
) -> Loader:
    settings = recipe.data
    stream = Stream(
        len(source),
        recipe.train.batch_size,
        seed=recipe.train.seed,
        rank=rank(),
        world=world_size(),
        accumulate=recipe.train.accumulate,
    )
    if settings.buckets is not None:
        stream = BucketedStream.of(stream, source, window=settings.buckets, even=settings.even)
    return Loader(
        source,
        reader,
        stream,
        device=device,
        workers=settings.workers,
        worker_kind=settings.worker_kind,
        cache=settings.cache,
        cache_bytes=settings.cache_bytes,
        max_corrupt=settings.max_corrupt,
        corrupt_log=run.corrupt_file,
    )


@dataclass(frozen=True)
class _Baselines:
    raw: dict[str, Any]
    untrained: dict[str, Any]
    places: dict[str, Any]


def _baselines(run: Run, evaluator: Evaluator, parts: Parts, split: Split) -> _Baselines:
    """What raw input and the untrained encoder reach; taken from disk when a run continues."""
    fingerprint = split.train.fingerprint()
    if run.baselines_file.is_file():
        saved = read_json(run.baselines_file)
        if saved["fingerprint"] == fingerprint:
            return _Baselines(saved["raw"], saved["untrained"], saved["places"])
    encoder = parts.method.backbone.to(evaluator.device)
    untrained, raw = evaluator.embed(encoder, raw=True)
    assert raw is not None
    probe = evaluator.settings.probe
    found = _Baselines(
        measure(evaluator, raw, probe=probe),
        measure(evaluator, untrained, probe=probe),
        places(untrained, seed=evaluator.seed),
    )
    write_json(
        run.baselines_file,
        {
            "fingerprint": fingerprint,
            "raw": found.raw,
            "untrained": found.untrained,
            "places": found.places,
        },
    )
    return found


def _finish(
    run: Run,
    recipe: Recipe,
    parts: Parts,
    evaluator: Evaluator,
    baselines: _Baselines,
    result: FitResult,
    domain: Domain,
    watch: Watch | None,
) -> None:
    """Weights, evaluation, summary, report."""
    from ssl_core.report import write_report

    began = time.perf_counter()
    backbone = parts.method.backbone
    watched = None
    if watch is not None:
        watched = watch.settle(run, backbone, evaluator, result.steps, recipe.train.steps)
    write_tensors(
        run.weights,
        backbone.state_dict(),
        {"spec": parts.spec, "encoder": recipe.encoder.model_dump()},
    )
    trained, _ = evaluator.embed(backbone)
    measured = measure(evaluator, trained, probe=evaluator.settings.probe)
    note_corrupt(run, evaluator.corrupt)
    summary: dict[str, Any] = {
        "domain": domain.name,
        "method": recipe.method.name,
        "encoder": recipe.encoder.name,
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "samples_per_second": result.samples_per_second or _logged_rate(run),
        "wall_seconds": result.wall_seconds,
        **compare(evaluator, trained, baselines.raw, baselines.untrained, measured),
        **started(run, recipe, watched),
        "skipped": result.skipped,
        "health": judge(run.metrics()),
        "corrupt": len(run.corrupt()),
        "parameters": count_parameters(backbone),
        "seed": recipe.train.seed,
        "device": str(evaluator.device),
        "world": world_size(),
        "data": run.facts["data"],
        "evaluation_seconds": time.perf_counter() - began,
        "versions": versions(domain.package.replace("_", "-"), *domain.libraries),
        "machine": machine(evaluator.device),
    }
    summary["more"] = measure_more(run, domain, evaluator.device, recipe.evaluation.more)
    summary["verdict"] = verdict(summary, *([] if watched is None else [watched["words"]]))
    rows = evaluator.few(ROWS)
    if rows is not None:
        write_pictures(run, domain, parts, rows, seed=recipe.train.seed)
    write_gallery(run, domain, parts, evaluator, trained, untrained=baselines.places)
    write_json(run.summary_file, summary)
    write_report(run)


def note_corrupt(run: Run, found: Mapping[str, str]) -> None:
    """Adds records that evaluation could not read to `corrupt.jsonl`, each key once.

    Training counts its own share of corrupt samples from that file, so this comes after it.
    """
    entries = run.corrupt()
    known = {entry.get("key") for entry in entries}
    entries += [
        {"key": key, "reason": reason, "replacement": None, "step": None}
        for key, reason in found.items()
        if key not in known
    ]
    if len(entries) > len(known):
        atomic_write(run.corrupt_file, "".join(to_json(entry) + "\n" for entry in entries))


def _logged_rate(run: Run) -> float:
    """Mean throughput of the log; for a run that had nothing left but its evaluation."""
    rates = [record["samples_per_second"] for record in run.metrics()]
    return float(np.mean(rates)) if rates else 0.0


def count_parameters(module: nn.Module) -> int:
    """Numbers a module learns."""
    return sum(p.numel() for p in module.parameters())
