from ssl_core.api import evaluate, export, finetune, load, resume
from ssl_core.bound import adapt, build_recipe, plan, pretrain
from ssl_medical.domain import MEDICAL
from ssl_medical.encoders.create import create_encoder
from ssl_medical.files.open import read_volume
from ssl_medical.reader import VolumeReader
from ssl_medical.samples import write_samples

__all__ = [
    "MEDICAL",
    "VolumeReader",
    "adapt",
    "build_recipe",
    "create_encoder",
    "evaluate",
    "export",
    "finetune",
    "load",
    "plan",
    "pretrain",
    "read_volume",
    "resume",
    "write_samples",
]
__version__: str
