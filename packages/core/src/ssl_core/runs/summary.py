"""The outcome of a run in numbers and in plain words."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from ssl_core.engine.health import COLLAPSED_STD
from ssl_core.environment import available_cores
from ssl_core.evaluation.rivals import KNN, RANK, VIEWS, Evaluator, Rival

SCORE_WORDS = {
    KNN: "k-NN accuracy",
    VIEWS: "view retrieval R@1",
    RANK: "effective rank",
}


def measure(evaluator: Evaluator, rival: Rival, *, probe: bool = False) -> dict[str, Any]:
    """Score, geometry and, when asked for and labelled, probe and retrieval of one rival."""
    out: dict[str, Any] = {"score": evaluator.score(rival), **evaluator.geometry(rival)}
    if probe and evaluator.labelled:
        out["probe"] = evaluator.probe(rival)
        out["recall"] = evaluator.recall(rival)
    return out


def compare(
    evaluator: Evaluator,
    rival: Rival,
    raw: Mapping[str, Any],
    untrained: Mapping[str, Any],
    trained: Mapping[str, Any],
) -> dict[str, Any]:
    """`score`, and `knn` where that is what the score is, each with three numbers; geometry."""
    name = evaluator.score_name(rival)
    numbers = {
        "raw": raw["score"],
        "untrained": untrained["score"],
        "trained": trained["score"],
    }
    out: dict[str, Any] = {"score": {"name": name, **numbers}}
    if name == KNN:
        out["knn"] = numbers
        out["chance"] = rival.chance()
    out["queries"] = len(rival.queries)
    out["effective_rank"] = trained["effective_rank"]
    out["rivals"] = {"raw": dict(raw), "untrained": dict(untrained), "trained": dict(trained)}
    return out


def verdict(summary: Mapping[str, Any], *first: str) -> str:
    """What the numbers say, without claiming more than they show.

    Collapse comes before everything. What the run was asked to measure with a `score`
    (`measures.scored`) comes before k-NN, which is then said to be another matter; measures that
    have only `words` come last. `first` goes between the two.
    """
    more = summary.get("more", {}).values()
    led = [_told(found) for found in more if "score" in found]
    rest = [found["words"] for found in more if "words" in found and "score" not in found]
    if (alarm := _alarm(summary)) is not None:
        return " ".join([alarm, *first, *led, *rest])
    trained = summary["rivals"]["trained"]
    name = summary["score"]["name"]
    rank = f"Effective rank {trained['effective_rank']:.0f} of {trained['dim']:.0f} dimensions."
    if name == RANK:
        own = f"{rank} {_unscored()}" if not led else rank
    else:
        own = f"{_comparison(summary, led=bool(led))} {rank}"
    return " ".join([*led, own, *first, *rest])


def _alarm(summary: Mapping[str, Any]) -> str | None:
    """What no score can make good."""
    trained = summary["rivals"]["trained"]
    if not math.isfinite(_number(summary["score"]["trained"])):
        return "The trained encoder gives non-finite features; lower the learning rate."
    if trained["feature_std"] < COLLAPSED_STD:
        return (
            f"The representation collapsed: all embeddings are nearly equal (spread "
            f"{trained['feature_std']:.4f} of 1). Lower the learning rate or change the method's "
            "temperature, momentum or regulariser."
        )
    return None


def _told(found: Mapping[str, Any]) -> str:
    """A measure's words, after what they show: more than the noise of its repetitions, or not."""
    score, words = found["score"], found.get("words")
    best, noise = score["best"], score["noise"]
    gain = score["trained"] - score["rivals"][best]
    if words is None:
        words = f"{score['name']} {score['trained']:.3f}, {score['rivals'][best]:.3f} {best}."
    if noise is None:  # one repetition tells nothing of others
        return f"{words} One repetition does not show how far that would hold."
    if abs(gain) <= noise:
        return f"No clear gain: {words} The difference is within the noise (±{noise:.3f})."
    return f"{'Training helped' if gain > 0 else 'Training did not help'}: {words}"


def _comparison(summary: Mapping[str, Any], *, led: bool = False) -> str:
    """k-NN or view retrieval against the better rival; `led` where another score came before."""
    score, n = summary["score"], summary["queries"]
    raw, untrained, trained = (_number(score[key]) for key in ("raw", "untrained", "trained"))
    first = "the encoder at its start" if "start" in summary else "the untrained encoder"
    best, name = max((raw, "raw input"), (untrained, first))
    name_of_score = SCORE_WORDS[score["name"]]
    before = f"In {name_of_score}, " if led else ""
    words = percent(trained) if led else f"{name_of_score} {percent(trained)}"

    def opened(text: str) -> str:
        return before + text[0].lower() + text[1:] if led else text

    state = "at the start" if "start" in summary else "untrained"
    against = f"{percent(untrained)} {state} and {percent(raw)} for raw input ({n} held out)."
    # Two standard errors of the difference of two proportions on n records.
    noise = 2 * math.sqrt((trained * (1 - trained) + best * (1 - best)) / max(1, n))
    if abs(trained - best) <= noise:
        return (
            f"{opened('No clear gain')}: {words} against {against} The difference to {name} is "
            f"within what {n} records can show (±{100 * noise:.1f} points); train longer or hold "
            "out more."
        )
    if trained > best:
        return f"{opened('Training helped')}: {words} against {against}"
    better = f"{name[0].upper()}{name[1:]} is better."
    return f"{opened('Training did not help')}: {words} against {against} {better}"


def _unscored() -> str:
    return (
        "Without labels or random views there is no accuracy to report; "
        "give labelled data to `evaluate`."
    )


def _number(value: float | None) -> float:
    """JSON stores non-finite numbers as null."""
    return math.nan if value is None else value


def percent(value: float | None) -> str:
    """A share as text."""
    return "n/a" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def shown(name: str, value: float | None) -> str:
    """A score as text: a percentage, or a plain number for the effective rank."""
    if name != RANK:
        return percent(value)
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.1f}"


def shown_score(name: str, value: float) -> str:
    """A measure of a fine-tuned head as text: shares as percentages, errors as numbers."""
    return percent(value) if name in ("accuracy", "mAP", "AUROC", "mIoU") else f"{value:.4g}"


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of the installed packages among `packages` and the usual ones."""
    names = ("torch", "numpy", "numba", "scikit-learn", "ssl-core", *packages)
    out = {"python": platform.python_version()}
    for name in names:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


def machine(device: torch.device | str) -> dict[str, str]:
    """What a run was computed on: operating system, cores, processor or GPU."""
    device = torch.device(device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none used"
    return {
        "system": platform.platform(aliased=True),
        "cores": str(available_cores()),
        "GPU": gpu,
    }
