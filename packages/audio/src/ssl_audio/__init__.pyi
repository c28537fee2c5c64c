from ssl_audio.decode import decode_audio
from ssl_audio.domain import AUDIO
from ssl_audio.features import log_mel
from ssl_audio.frames import embed_frames
from ssl_audio.probes import abx_error, detect_events, mean_average_precision
from ssl_audio.reader import AudioReader
from ssl_audio.samples import write_samples
from ssl_core.api import evaluate, export, finetune, load, resume
from ssl_core.bound import adapt, build_recipe, plan, pretrain

__all__ = [
    "AUDIO",
    "AudioReader",
    "abx_error",
    "adapt",
    "build_recipe",
    "decode_audio",
    "detect_events",
    "embed_frames",
    "evaluate",
    "export",
    "finetune",
    "load",
    "log_mel",
    "mean_average_precision",
    "plan",
    "pretrain",
    "resume",
    "write_samples",
]
__version__: str
