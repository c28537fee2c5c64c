"""Self-supervised learning for text: readers, tokenizers, views, encoders, the command.

Importing this package is cheap; torch is imported when one of its names is first used.

    import ssl_text
    run = ssl_text.pretrain(data="corpus.jsonl", method="simclr", out="runs/corpus")
    vectors = ssl_text.load(run).embed(["a sentence", "another"])
"""

from __future__ import annotations

from ssl_core.surface import surface

__version__ = "0.1.0"

__getattr__, __all__ = surface(
    __name__,
    "ssl_text.domain:TEXT",
    {
        "MLM": "ssl_text.methods.mlm:MLM",
        "TextReader": "ssl_text.reader:TextReader",
        "TokenBatch": "ssl_text.tokens:TokenBatch",
        "embed_tokens": "ssl_text.token_vectors:embed_tokens",
        "write_samples": "ssl_text.samples:write_samples",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
