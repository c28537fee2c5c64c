"""Seven methods as stable-pretraining trains them; used by `learning.py`.

Its method classes, losses and transforms, its callback for teachers, Lightning's trainer. Sizes,
temperatures and strengths of views are those of our recipe; everything else is theirs. It asks for
some sixty packages and therefore stands in no group: `uv pip install stable-pretraining`.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as pl
import stable_pretraining
import torch
from learning_parts import Backbone, Setup, TimmTwin, loader, paced
from loguru import logger
from stable_pretraining import methods
from stable_pretraining.callbacks import TeacherStudentCallback
from stable_pretraining.data import transforms
from torch import Tensor, nn

# It adds callbacks of its own to every trainer, also one that prints.
stable_pretraining.set(verbose="ERROR", progress_bar="none")
logger.remove()
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class StableRun:
    """One method of stable-pretraining's in one `Trainer.fit`, which waits between stretches."""

    def __init__(self, setup: Setup) -> None:
        train = setup.recipe.train
        self.model: Model = MODELS[setup.recipe.method.name](setup)
        batches = loader(setup, self.model.views)
        self.turns = Turns()
        trainer = pl.Trainer(
            accelerator="cpu",
            precision="bf16-mixed" if train.precision == "bf16" else "32-true",
            max_steps=train.steps,
            max_epochs=math.ceil(train.steps / len(batches)),
            callbacks=[TeacherStudentCallback(), self.turns],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        threads = torch.get_num_threads()

        def fit() -> None:
            torch.set_num_threads(threads)
            trainer.fit(self.model, batches)

        self.turns.run(fit)

    def advance(self, steps: int) -> None:
        """Trains for so many steps."""
        self.model.train()
        self.turns.take(steps)

    @property
    def encoder(self) -> nn.Module:
        """What is judged."""
        return self.model.judged()


class Turns(pl.Callback):
    """Holds a trainer, which runs in a thread of its own, until its turn comes."""

    def __init__(self) -> None:
        self.left = 0
        self.error: BaseException | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)

    def run(self, fit: Callable[[], None]) -> None:
        """Starts `fit`, which waits for the first turn."""

        def target() -> None:
            self._go.acquire()
            try:
                fit()
            except BaseException as error:
                self.error = error
            finally:
                self._stopped.release()

        threading.Thread(target=target, daemon=True).start()

    def take(self, steps: int) -> None:
        """Lets it go on for `steps` steps, and waits; raises what it died of."""
        self.left = steps
        self._go.release()
        self._stopped.acquire()
        if self.error is not None:
            raise self.error

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """After the last step of a turn: waits, unless the run is over."""
        self.left -= 1
        if self.left == 0 and trainer.global_step < trainer.max_steps:
            self._stopped.release()
            self._go.acquire()


class Model(pl.LightningModule):
    """A method with our optimiser's rates: `views` of one image, their `loss`."""

    method: nn.Module
    views: Callable[[Any], Any]

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup_of_race = setup
        self.width: int = setup.encoder.embed_dim  # type: ignore[assignment]
        # One network, which the method trains and this module judges.
        self.backbone = Backbone(setup.encoder)

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss: Tensor = self.method(*(view["image"] for view in batch["views"])).loss
        return loss

    def configure_optimizers(self) -> Any:
        learned = [p for p in self.method.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in learned if p.ndim > 1]},
            {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer, schedule = paced(self.setup_of_race, groups)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def judged(self) -> nn.Module:
        return self.backbone.encoder


def chain(
    setup: Setup, size: int, scale: Sequence[float], *, solarise: float = 0.0
) -> transforms.Compose:
    """The library's transforms at the recipe's strengths."""
    views = setup.recipe.views.options
    # BYOL's and DINO's own strengths, where the recipe states none.
    strength = views.get("strength")
    colour = (0.4, 0.4, 0.2, 0.1) if strength is None else (0.8, 0.8, 0.8, 0.2)
    steps = [
        transforms.RGB(),
        transforms.RandomResizedCrop(size, scale=tuple(scale)),
        transforms.ColorJitter(*(value * (strength or 1.0) for value in colour), p=0.8),
        transforms.RandomGrayscale(p=views["grey"]),
        transforms.RandomHorizontalFlip(p=views["flip"]),
    ]
    if solarise:
        steps.append(transforms.RandomSolarize(threshold=128, p=solarise))
    return transforms.Compose(*steps, transforms.ToImage(mean=setup.mean, std=setup.std))


def many(views: Sequence[Any]) -> Callable[[Any], Any]:
    """All views of one image."""
    made = transforms.MultiViewTransform(list(views))
    return lambda image: made({"image": image})


def pair(setup: Setup) -> Callable[[Any], Any]:
    views = setup.recipe.views.options
    return many([chain(setup, views["size"], views["scale"])] * 2)


class SimCLR(Model):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        sizes = (setup.option("method", "hidden"), setup.option("method", "dim"))
        temperature = setup.option("method", "temperature")
        self.method = methods.SimCLR(self.backbone, sizes, temperature)
        self.views = pair(setup)


class BarlowTwins(Model):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        hidden, dim = setup.option("method", "hidden"), setup.option("method", "dim")
        lambd = setup.option("method", "lambd")
        self.method = methods.BarlowTwins(self.backbone, (hidden, hidden, dim), lambd)
        self.views = pair(setup)


class VICReg(Model):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        hidden, dim = setup.option("method", "hidden"), setup.option("method", "dim")
        self.method = methods.VICReg(self.backbone, (hidden, hidden, dim))
        self.views = pair(setup)


class BYOL(Model):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        sizes = (setup.option("method", "hidden"), setup.option("method", "dim"))
        start = setup.option("method", "momentum")
        self.method = methods.BYOL(self.backbone, sizes, sizes, ema_decay_start=start)
        views = setup.recipe.views.options
        self.views = many(
            [chain(setup, views["size"], views["scale"], solarise=p) for p in views["solarise"]]
        )

    def judged(self) -> nn.Module:
        taught: nn.Module = self.method.backbone.teacher.encoder  # type: ignore[assignment, union-attr]
        return taught


class Crops(Model):
    """Global and local crops."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        views = setup.recipe.views.options
        whole = chain(setup, views["size"], views["global_scale"])
        part = chain(setup, views["local_size"], views["local_scale"])
        solarised = chain(setup, views["size"], views["global_scale"], solarise=views["solarise"])
        self.views = many([whole, solarised] + [part] * views["local_views"])

    def training_step(self, batch: Any, index: int) -> Tensor:
        views = [view["image"] for view in batch["views"]]
        loss: Tensor = self.method(global_views=views[:2], local_views=views[2:]).loss
        return loss


class SwAV(Crops):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        sizes = (setup.option("method", "hidden"), setup.option("method", "dim"))
        self.method = methods.SwAV(self.backbone, sizes, setup.option("method", "prototypes"))


class DINO(Crops):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of, train = setup.recipe.method.options, setup.recipe.train
        epochs = train.steps * train.batch_size / len(setup.files)
        self.method = methods.DINO(
            self.backbone,
            projector_hidden_dim=of["hidden"],
            projector_bottleneck_dim=of["bottleneck"],
            n_prototypes=of["prototypes"],
            temperature_teacher=of["teacher_temperature"],
            warmup_epochs_temperature_teacher=max(1, round(0.3 * epochs)),
            ema_decay_start=of["momentum"],
        )

    def judged(self) -> nn.Module:
        taught: nn.Module = self.method.backbone.teacher.encoder  # type: ignore[assignment, union-attr]
        return taught


class MAE(Model):
    """On timm's network of our encoder's shape; judged in our encoder."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of, views = setup.recipe.method.options, setup.recipe.views.options
        self.twin = TimmTwin(setup.encoder)
        self.method = methods.MAE(
            self.twin.vit,
            decoder_embed_dim=of["decoder_dim"],
            decoder_depth=of["decoder_depth"],
            decoder_num_heads=of["decoder_heads"],
            mask_ratio=of["mask_ratio"],
        )
        crop = transforms.RandomResizedCrop(views["size"], scale=tuple(views["scale"]))
        image = transforms.ToImage(mean=setup.mean, std=setup.std)
        self.views = many([transforms.Compose(transforms.RGB(), crop, image)])

    def judged(self) -> nn.Module:
        return self.twin.ours(self.method.encoder.vit)  # type: ignore[union-attr, arg-type]


MODELS: Mapping[str, type[Model]] = {
    "simclr": SimCLR,
    "byol": BYOL,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "swav": SwAV,
    "dino": DINO,
    "mae": MAE,
}
