from ssl_core.api import build_recipe, evaluate, export, finetune, load, pretrain, resume
from ssl_core.batch import Batch, Record
from ssl_core.domain import Domain
from ssl_core.encoder import Features
from ssl_core.engine.fit import FitResult
from ssl_core.errors import UserError
from ssl_core.fitting import fit
from ssl_core.methods.base import Loss, Method
from ssl_core.recipe import Recipe
from ssl_core.rng import Rng
from ssl_core.runs.folder import Run
from ssl_core.runs.model import Model
from ssl_core.views import View

__all__ = [
    "Batch",
    "Domain",
    "Features",
    "FitResult",
    "Loss",
    "Method",
    "Model",
    "Recipe",
    "Record",
    "Rng",
    "Run",
    "UserError",
    "View",
    "build_recipe",
    "evaluate",
    "export",
    "finetune",
    "fit",
    "load",
    "pretrain",
    "resume",
]
__version__: str
