from ssl_core.api import evaluate, export, finetune, load, resume
from ssl_core.bound import adapt, build_recipe, plan, pretrain
from ssl_vision.decode import decode_image
from ssl_vision.domain import VISION
from ssl_vision.encoders.create import create_encoder
from ssl_vision.reader import ImageReader
from ssl_vision.samples import write_samples

__all__ = [
    "VISION",
    "ImageReader",
    "adapt",
    "build_recipe",
    "create_encoder",
    "decode_image",
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
