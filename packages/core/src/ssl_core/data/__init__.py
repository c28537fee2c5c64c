"""From files to batches: sources, the stream of samples, the loader."""

from ssl_core.data.arrays import ArraySource
from ssl_core.data.decoded import decode_all
from ssl_core.data.fetch import Failure
from ssl_core.data.files import FileSource
from ssl_core.data.folder import read_folder
from ssl_core.data.heads import head_of, labels_of
from ssl_core.data.limits import MAX_BYTES, read_bytes, with_retries
from ssl_core.data.loader import Loader
from ssl_core.data.manifest import read_manifest
from ssl_core.data.open import open_source
from ssl_core.data.stream import Stream
from ssl_core.data.subset import Subset, limited, split_holdout
from ssl_core.data.tar import TarSource, open_tars

__all__ = [
    "MAX_BYTES",
    "ArraySource",
    "Failure",
    "FileSource",
    "Loader",
    "Stream",
    "Subset",
    "TarSource",
    "decode_all",
    "head_of",
    "labels_of",
    "limited",
    "open_source",
    "open_tars",
    "read_bytes",
    "read_folder",
    "read_manifest",
    "split_holdout",
    "with_retries",
]
