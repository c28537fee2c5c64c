"""A recipe: the validated, serialisable description of a run. A published system is one."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Section(BaseModel):
    """Unknown keys are errors: a typo must never be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(BaseModel):
    """A registered name and the options its factory takes: `{name: simclr, temperature: 0.1}`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.__pydantic_extra__ or {})


def named(value: Any) -> Named:
    """A name alone, or a mapping with `name`, inside a section's options."""
    return Named(name=value) if isinstance(value, str) else Named.model_validate(value)


class Data(_Section):
    """Where records come from and which are held out."""

    path: str | None = None
    """Folder, file list, manifest, `shards-*.tar`, a URL of shards, `hf:NAME`; None is the embedded
    data."""
    format: str = "auto"
    """Which source reads `path`; "auto" decides by what is there."""
    holdout: float = Field(0.2, ge=0, lt=1)
    """Share of records kept from training for evaluation, chosen by a hash of their keys."""
    limit: int | None = Field(None, ge=1)
    """Use at most this many records."""
    cache: Literal["auto", "memory", "none"] = "auto"
    """Keep decoded samples: "auto" does when they fit in `cache_bytes`."""
    cache_bytes: int = Field(2 * 1024**3, ge=0)
    workers: int = Field(2, ge=0)
    """Decoding threads (or processes); 0 decodes in the training loop."""
    worker_kind: Literal["thread", "process"] = "thread"
    buckets: int | None = Field(None, ge=2)
    """Put records of similar length into one batch, sorted within windows of this many batches;
    for sources that know lengths (`Source.lengths`: texts)."""
    even: Literal["records", "tokens"] = "records"
    """What all batches of such a window have alike: how many records they hold, or about how much
    they hold when padded; then `train.batch_size` is the records of a batch on average."""
    max_corrupt: float = Field(0.05, ge=0, le=1)
    """Abort when a larger share of the samples seen was unreadable."""
    options: dict[str, Any] = {}
    """What only one domain's reader takes (text length, pixel cap...)."""

    @model_validator(mode="after")
    def _bucketed(self) -> Data:
        if self.even == "tokens" and self.buckets is None:
            raise ValueError("even: tokens needs data.buckets, windows to sort by length in")
        return self

    def at(self, path: str | os.PathLike[str] | None) -> Data:
        """The same options for all records at another path; itself where none is given."""
        if path is None:
            return self
        return self.model_copy(update={"path": str(path), "format": "auto", "limit": None})


class Infinite(_Section):
    """A rate without a planned end: from `lr` down to `constant`, where it stays (all in steps)."""

    constant: float = Field(gt=0)
    warmup: int = Field(0, ge=0)
    cooldown: int = Field(0, ge=0)
    anneal: int = Field(0, ge=0)
    """Last steps, in which the rate falls to `optimizer.end_lr`; continue from before them."""


class Start(_Section):
    """Weights to begin from, and what keeps training from spoiling them."""

    weights: str | None = None
    """A safetensors file or a finished run, for the encoder; None begins with random numbers."""
    minimum: float = Field(0.9, ge=0, le=1)
    """Share of the encoder's tensors that must be found there."""
    frozen: float = Field(0.0, ge=0, lt=1)
    """Share of the run in which the encoder stands still while new heads grow."""
    anchor: float = Field(0.0, ge=0)
    """Weight of the pull of the encoder's parameters towards their start (L2-SP)."""
    guard: Literal["off", "stop", "rollback"] = "off"
    """What to do when the score, taken every `evaluation.every` steps, falls below step 0's."""
    tolerance: float = Field(0.02, ge=0)
    """How far below step 0's the score may lie."""


class Optimizer(_Section):
    """The optimiser and its schedules; rates are for `batch_size`, not per 256."""

    name: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    weight_decay_end: float | None = Field(None, ge=0)
    """Final weight decay of a cosine (DINO); None keeps it constant."""
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(0.9, ge=0, lt=1)
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the run spent in linear warm-up."""
    end_lr: float = Field(0.0, ge=0)
    cycle: int | None = Field(None, ge=1)
    """Begin warm-up and cosine anew every this many steps, as when new data comes."""
    infinite: Infinite | None = None
    """Instead of warm-up and cosine, which must know the number of steps: see `Infinite`."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    clip: float | None = Field(None, gt=0)
    """Largest global gradient norm."""

    @model_validator(mode="after")
    def _ordered(self) -> Optimizer:
        found = self.infinite
        if found is not None:
            if self.cycle is not None:
                raise ValueError("infinite has no end from which cycle could begin anew")
            if found.constant > self.lr:
                raise ValueError(f"infinite.constant {found.constant} is above lr {self.lr}")
            if found.anneal and not 0 < self.end_lr <= found.constant:
                raise ValueError("infinite.anneal needs end_lr above 0, at most infinite.constant")
        return self


class Train(_Section):
    """The engine's settings."""

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(128, ge=2)
    """Global batch: over all ranks and accumulation steps."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per step. A loss that compares the samples of a batch goes through the gradient
    cache, so the number changes memory and time, never the gradient."""
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    cuda_graphs: bool = False
    """Compile, and replay the encoder's blocks as CUDA graphs: for networks so small that launching
    kernels takes longer than running them. Not with fsdp or checkpointing."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Over several ranks: whole copies (ddp), or parameters split block by block (fsdp)."""
    shard: int | None = Field(None, ge=1)
    """With fsdp, split over this many ranks and replicate beyond; None: over all."""
    checkpointing: bool = False
    """Run every block again in the backward pass instead of keeping its activations."""
    deterministic: bool = True
    """Bit-identical repeats on one kind of hardware."""
    channels_last: bool = True
    profile: int = Field(0, ge=0)
    """Steps to trace with torch's profiler, into RUN/profile/trace.json."""
    log_every: int = Field(20, ge=1)
    save_every: int = Field(500, ge=1)
    keep: int = Field(2, ge=1)
    """Newest checkpoints kept, besides the best one."""
    allow: tuple[str, ...] = ()
    """Names of what may differ from the saved run when it is continued (data, batch_size, seed,
    steps... or any key of the recipe); otherwise a changed run is refused."""
    stall_timeout: float = Field(1800, gt=0)
    """Seconds without word from a rank after which the others give up and may be restarted."""
    max_skipped: int = Field(10, ge=1)
    """Abort after this many non-finite steps in a row."""


class Evaluation(_Section):
    """What is measured after training (and every `every` steps, when set)."""

    k: int = Field(20, ge=1)
    temperature: float = Field(0.07, gt=0)
    every: int | None = Field(None, ge=1)
    probe: bool = False
    """Also fit a linear probe."""
    more: dict[str, dict[str, Any]] = {}
    """What else to measure after training: name -> options (`runs.measures`)."""
    limit: int = Field(10_000, ge=1)
    """At most this many records in each of bank and queries."""


class Recipe(_Section):
    """One run."""

    domain: str
    description: str = ""
    data: Data = Data()
    views: Named
    encoder: Named
    method: Named
    start: Start = Start()
    optimizer: Optimizer = Optimizer()
    train: Train = Train()
    evaluation: Evaluation = Evaluation()
