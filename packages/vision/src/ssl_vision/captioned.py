"""Images with captions: where they stand, and the reader that reads both."""

from __future__ import annotations

from pathlib import Path

from ssl_core.batch import Source
from ssl_core.data.captions import CaptionReader, require_captions
from ssl_core.recipe import Data
from ssl_vision.reader import ImageReader, ReaderOptions

TABLES = ("captions.csv", "captions.tsv", "captions.parquet", "captions.jsonl")
"""Manifests that a folder of images may hold, with columns `path` and one of captions."""


def with_captions(data: Data) -> Data:
    """The same data, where a folder holds one of `TABLES` by that manifest.

    Other folders stay as they are: a run with captions embeds images without them.
    """
    folder = Path(str(data.path)).expanduser()
    if data.format not in ("auto", "folder") or not folder.is_dir():
        return data
    found = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if found is None:
        return data
    return data.model_copy(update={"path": str(found), "format": "manifest"})


def fit_captioned(source: Source, options: ReaderOptions) -> CaptionReader:
    """A reader of images and of the captions that `options.captions` names.

    Raises `UserError` where no record has one.
    """
    assert options.captions is not None, "the caller looked"
    require_captions(source, options.captions)
    return CaptionReader.fit(
        ImageReader.fit(source, options),
        source,
        field=options.captions,
        length=options.caption_length,
        vocab_size=options.vocab_size,
        tokenizer=options.tokenizer,
    )
