"""Self-supervised learning for text: readers, tokenizers, views, encoders, the command.

Importing this package is cheap; torch is imported when one of its names is first used.

    import ssl_text
    run = ssl_text.pretrain(data="corpus.jsonl", method="simclr", out="runs/corpus")
    vectors = ssl_text.load(run).embed(["a sentence", "another"])
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_DOMAIN = "ssl_text.domain:TEXT"
_NAMES = {
    "MLM": "ssl_text.methods.mlm:MLM",
    "TEXT": "ssl_text.domain:TEXT",
    "TextReader": "ssl_text.reader:TextReader",
    "TokenBatch": "ssl_text.tokens:TokenBatch",
    "write_samples": "ssl_text.samples:write_samples",
}
_API = ("evaluate", "export", "finetune", "load", "pretrain", "resume")

__all__ = ["MLM", "TEXT", "TextReader", "TokenBatch", "evaluate", "export", "finetune", "load"]
__all__ += ["pretrain", "resume", "write_samples"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for (PEP 562)."""
    if name in _NAMES:
        module, _, attribute = _NAMES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if name in _API:
        return importlib.import_module("ssl_core.api").bound(_DOMAIN)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
