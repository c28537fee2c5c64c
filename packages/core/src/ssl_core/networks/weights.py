"""Loading weights with proof: what matched, what did not, and a refusal when too little did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ssl_core.errors import UserError

Adapt = Callable[[dict[str, Tensor]], dict[str, Tensor]]

_WRAPPERS = ("module.", "encoder.", "backbone.", "model.", "teacher.", "student.", "base_encoder.")


@dataclass(frozen=True)
class WeightReport:
    """Names of tensors: loaded, left as they were, of another shape, and not used."""

    matched: list[str]
    missing: list[str]
    mismatched: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of the module's tensors that were loaded."""
        return len(self.matched) / max(1, len(self.matched) + len(self.missing))

    def __str__(self) -> str:
        parts = {"missing": self.missing, "of another shape": self.mismatched}
        parts["unused"] = self.unused
        text = f"{len(self.matched)} of {len(self.matched) + len(self.missing)} tensors matched"
        for what, names in parts.items():
            if names:
                more = ", ..." if len(names) > 5 else ""
                text += f"; {len(names)} {what} ({', '.join(names[:5])}{more})"
        return text


def load_weights(
    module: nn.Module,
    weights: str | Path | Mapping[str, Tensor],
    *,
    minimum: float = 0.9,
    adapt: Adapt | None = None,
) -> WeightReport:
    """Copies tensors of equal name and shape into `module`.

    `weights` is a safetensors file (formats that run code on loading are refused) or a mapping.
    Wrapper prefixes such as "encoder." are removed where that matches more; `adapt` may then
    convert what was given (positions of another resolution). Raises `UserError` when less than
    the share `minimum` of the module's tensors was found; the module is then untouched.
    """
    found = _matched(module, _tensors(weights), adapt)
    return _loaded(module, found, weights, minimum)


def load_best(encoder: nn.Module, weights: str | Path, *, minimum: float = 0.9) -> WeightReport:
    """`load_weights` into an encoder, or into the library's network in its `model`.

    Files of a library's weights use that library's names, and exports use ours: whichever fits
    more tensors is taken. An encoder's `adapt_weights` may convert what was given.
    """
    given = _tensors(weights)
    adapt = getattr(encoder, "adapt_weights", None)
    inner = getattr(encoder, "model", None)
    choices = [(encoder, None if isinstance(inner, nn.Module) else adapt)]
    if isinstance(inner, nn.Module):
        choices.append((inner, adapt))
    found = [(module, _matched(module, given, convert)) for module, convert in choices]
    module, best = max(found, key=lambda choice: choice[1][0].share)
    return _loaded(module, best, weights, minimum)


Found = tuple[WeightReport, dict[str, Tensor]]


def _tensors(weights: str | Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(weights) if isinstance(weights, Mapping) else _read(Path(weights))


def _matched(module: nn.Module, given: dict[str, Tensor], adapt: Adapt | None) -> Found:
    """What of `given` fits `module`, and those tensors."""
    own = module.state_dict()
    given = max(_unwrapped(given), key=lambda names: sum(name in own for name in names))
    given = given if adapt is None else adapt(given)
    matched = [name for name in own if name in given and given[name].shape == own[name].shape]
    report = WeightReport(
        matched,
        missing=[name for name in own if name not in matched],
        mismatched=[name for name in own if name in given and name not in matched],
        unused=[name for name in given if name not in own],
    )
    return report, {name: given[name] for name in matched}


def _loaded(
    module: nn.Module,
    found: Found,
    weights: str | Path | Mapping[str, Tensor],
    minimum: float,
) -> WeightReport:
    report, tensors = found
    if report.share < minimum:
        source = "weights" if isinstance(weights, Mapping) else str(weights)
        raise UserError(
            f"weights: {source} does not fit {type(module).__name__}: {report}. "
            f"At least {minimum:.0%} must match; choose the encoder the weights were made with"
        )
    module.load_state_dict(tensors, strict=False)
    return report


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"weights: {path} does not exist")
    if path.suffix != ".safetensors":
        raise UserError(
            f"weights: {path} is not a .safetensors file; other formats can run code when "
            "loaded. Convert it with safetensors.torch.save_file(state_dict, path)"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"weights: {path} cannot be read: {error}") from error


def _unwrapped(given: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The names as they are, and with wrapper prefixes (also nested ones) taken off."""
    found = [given]
    for names in found:
        for wrapper in _WRAPPERS:
            inner = {k.removeprefix(wrapper): v for k, v in names.items() if k.startswith(wrapper)}
            if inner:
                found.append(inner)
    return found
