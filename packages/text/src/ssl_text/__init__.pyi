from ssl_core.api import evaluate, export, finetune, load, resume
from ssl_core.bound import adapt, build_recipe, plan, pretrain
from ssl_text.domain import TEXT
from ssl_text.methods.mlm import MLM
from ssl_text.reader import TextReader
from ssl_text.samples import write_samples
from ssl_text.token_vectors import embed_tokens
from ssl_text.tokens import TokenBatch

__all__ = [
    "MLM",
    "TEXT",
    "TextReader",
    "TokenBatch",
    "adapt",
    "build_recipe",
    "embed_tokens",
    "evaluate",
    "export",
    "finetune",
    "load",
    "plan",
    "pretrain",
    "resume",
    "write_samples",
]
__version__: str
