from ssl_core.api import evaluate, export, finetune, load, resume
from ssl_core.bound import adapt, build_recipe, plan, pretrain
from ssl_video.domain import VIDEO
from ssl_video.encoders.create import create_encoder
from ssl_video.files.open import open_video
from ssl_video.frames import embed_frames
from ssl_video.reader import VideoReader
from ssl_video.samples import write_samples

__all__ = [
    "VIDEO",
    "VideoReader",
    "adapt",
    "build_recipe",
    "create_encoder",
    "embed_frames",
    "evaluate",
    "export",
    "finetune",
    "load",
    "open_video",
    "plan",
    "pretrain",
    "resume",
    "write_samples",
]
__version__: str
