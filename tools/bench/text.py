"""Masked language modelling against transformers' Trainer, and loading through the token cache.

    uv run --group peers python tools/bench/text.py [--rounds 5] [--steps 12] [--dropout 0.1]

One thread. The corpus is every docstring of the running Python's standard library, a document
each, of natural length; the same tokenizer and the same BERT, with weights of the same start.

Training: all learn the same model on the same token ids, batches of 32, AdamW. "trainer" is what
the library's `run_mlm` sets up with `--line_by_line`: `Trainer`, `BertForMaskedLM` and
`DataCollatorForLanguageModeling`, padded to the longest of a batch (with `--pad-to-max-length` to
all that fits). "ours" is `fit` with its defaults over the token cache, and once more with the
padding computed too. Candidates take turns; real tokens a second of processor time, from the first
step to the last, medians over rounds.

Loading: documents a CPU second through the loader in batches of 128, from JSON lines read and
tokenised, and from the token cache; the first pass, which fills the cache, is not counted.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import inspect
import io
import json
import statistics
import sysconfig
import tempfile
import time
import tokenize
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ssl_core import recipe
from ssl_core.batch import Batch, Source
from ssl_core.data import Loader, Stream
from ssl_core.engine.fit import fit
from ssl_text.domain import TEXT
from ssl_text.options import TextOptions
from ssl_text.reader import TextReader
from ssl_text.sources.opening import open_any
from ssl_text.sources.tokens import cached_tokens

BATCH, RATE = 32, 1e-4
LOADED = 128
"""Documents of a batch where only loading is timed."""


def docstrings(most: int) -> Iterator[str]:
    """Strings in triple quotes of the standard library's modules, in the order of the files."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        if {"test", "tests", "site-packages", "idlelib"} & set(file.parts):
            continue
        try:
            source = file.read_text(encoding="utf-8")
            for token in tokenize.generate_tokens(io.StringIO(source).readline):
                if token.type == tokenize.STRING and token.string.endswith(('"""', "'''")):
                    text = inspect.cleandoc(token.string.lstrip("rRuUbB")[3:-3])
                    if text.strip():
                        yield text
                        most -= 1
                if most == 0:
                    return
        except (UnicodeDecodeError, tokenize.TokenError, SyntaxError):
            continue  # files that show what such errors look like


class Setting:
    """The corpus, its reader and the encoder of one call of this program."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        path = folder / "documents.jsonl"
        lines = (json.dumps({"text": text}) + "\n" for text in docstrings(given.documents))
        path.write_text("".join(lines), encoding="utf-8")
        self.given = given
        self.options = TextOptions(
            max_length=given.max_length, vocab_size=given.vocab, token_cache=str(folder / "cache")
        )
        self.plain = open_any(str(path), format="auto", options=self.options, limit=None)
        self.reader = TextReader.fit(self.plain, self.options)
        self.cached = cached_tokens(self.plain, self.reader, self.options)

    def encoder(self, *, packed: bool = True) -> Any:
        given = self.given
        rates = {"dropout": given.dropout, "attention_dropout": given.dropout}
        size = {"depth": given.depth, "dim": given.dim, "heads": given.dim // 64}
        torch.manual_seed(0)
        return TEXT.create_encoder(
            "bert_mini", self.reader.spec, {**size, **rates, "packed": packed}
        )


class Timed:
    """Notes processor time and real tokens at each request for a batch."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        self.asked: list[float] = []
        self.tokens: list[int] = []
        for batch in self.loader.batches(start, stop):
            self.asked.append(time.process_time())
            self.tokens.append(int(batch.data.valid.sum()))
            yield batch

    def rate(self) -> float:
        """Real tokens a second, the first step left out."""
        return sum(self.tokens[1:-1]) / (self.asked[-1] - self.asked[1])


def ours(setting: Setting, *, packed: bool = True) -> float:
    views = TEXT.create_views("none", setting.reader.spec, {})
    method = TEXT.methods.build("mlm", setting.encoder(packed=packed), views, options={})
    steps = setting.given.steps + 1
    loader = Timed(_loader(setting.cached, setting.reader))
    train = recipe.Train(steps=steps, batch_size=BATCH, save_every=steps)
    with tempfile.TemporaryDirectory() as folder:
        optimizer = recipe.Optimizer(lr=RATE)
        fit(method, loader, train=train, optimizer=optimizer, out=Path(folder))
    return loader.rate()


def trainer(setting: Setting) -> float:
    """`run_mlm`'s set-up: the same documents, padded; tokens are counted without padding."""
    import transformers

    transformers.logging.set_verbosity_error()
    folder = Path(tempfile.mkdtemp())
    special = setting.reader.special
    names = {
        f"{role}_token": setting.reader.tokenizer.id_to_token(getattr(special, role))
        for role in ("pad", "cls", "sep", "mask")
    }
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=setting.reader.tokenizer,
        model_max_length=setting.given.max_length,
        **names,
    )
    model = transformers.BertForMaskedLM(setting.encoder().model.config)
    model.set_attn_implementation("sdpa")
    rows = [setting.cached[i].payload.sample.tolist() for i in range(len(setting.cached))]
    every = set(special.every)
    data = [
        {"input_ids": row, "special_tokens_mask": [int(i in every) for i in row]} for row in rows
    ]
    longest = setting.given.max_length if setting.given.pad_to_max_length else None
    seen: list[tuple[float, int]] = []
    inner = transformers.DataCollatorForLanguageModeling(tokenizer, pad_to_multiple_of=longest)

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        seen.append((time.process_time(), sum(len(row["input_ids"]) for row in examples)))
        made: dict[str, Any] = inner(examples)
        return made

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        max_steps=setting.given.steps + 1,
        learning_rate=RATE,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    made = transformers.Trainer(model, arguments, data_collator=collate, train_dataset=data)
    made.remove_callback(transformers.PrinterCallback)
    made.train()
    # A loader asks for a batch beyond the last: the first step is left out here as well.
    times, tokens = zip(*seen[: setting.given.steps + 1], strict=True)
    return sum(tokens[1:-1]) / (times[-1] - times[1])


def _loader(source: Source, reader: TextReader, batch: int = BATCH) -> Loader:
    return Loader(source, reader, Stream(len(source), batch), workers=0, cache="none")


def loading(source: Source, reader: TextReader) -> float:
    """Documents a second of processor time in one pass."""
    steps = len(source) // LOADED
    loader = _loader(source, reader, LOADED)
    began = time.process_time()
    for _ in loader.batches(0, steps):
        pass
    return steps * LOADED / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=8000)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--pad-to-max-length", action="store_true")
    parser.add_argument("--only", choices=("training", "loading"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(Path(scratch), given)
        lengths = setting.cached.lengths
        print(f"{len(lengths)} documents of {lengths.mean():.0f} tokens, at most {lengths.max()}")
        if given.only != "loading":
            rivals = {"ours": ours, "ours, padded": partial(ours, packed=False), "trainer": trainer}
            _compare("tokens a second, training", rivals, setting)
        if given.only != "training":
            passes = {
                "token cache": lambda s: loading(s.cached, s.reader),
                "tokenised": lambda s: loading(s.plain, s.reader),
            }
            _compare("documents a second, loading", passes, setting)


def _compare(what: str, candidates: dict[str, Any], setting: Setting) -> None:
    """Takes turns; prints medians, and the median of the ratios to the last of the same round."""
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(setting.given.rounds):
        for name, run in candidates.items():
            found[name].append(run(setting))
    print(f"{what}:")
    *_, last = found.values()
    for name, values in found.items():
        ratios = [a / b for a, b in zip(values, last, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  {name:14}{statistics.median(values):10.0f}  x {spread}")


if __name__ == "__main__":
    main()
