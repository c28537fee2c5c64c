"""What every candidate of `learning.py` is given, and how peers open files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ssl_core.recipe import Recipe
from ssl_core.schedules import warmup_cosine


@dataclass(frozen=True)
class Setup:
    """One race as a peer sees it."""

    recipe: Recipe
    files: Sequence[str]
    """Paths of the training images."""
    encoder: nn.Module
    """A copy for the candidate, with the initial weights that all of them start from."""
    mean: Sequence[float]
    std: Sequence[float]
    workers: int

    def option(self, section: str, name: str) -> Any:
        """An option of the recipe's views or method."""
        return getattr(self.recipe, section).options[name]

    @property
    def normalise(self) -> dict[str, list[float]]:
        """Mean and standard deviation in torchvision's words."""
        return {"mean": list(self.mean), "std": list(self.std)}


class TimmTwin:
    """timm's network of our encoder's shape, and our encoder with its weights, to be judged.

    Names are the same; what a library adds to the network (a mask token) is not ours. With `start`
    it begins with our encoder's weights, and positions that are fixed there are fixed.
    """

    def __init__(self, encoder: nn.Module, *, start: bool = False, **options: Any) -> None:
        shape = encoder.timm_arguments()  # type: ignore[operator]
        self.vit: nn.Module = VisionTransformer(**shape, **options)
        if start:
            self.vit.load_state_dict(encoder.timm_state_dict())  # type: ignore[operator]
            fixed = not isinstance(encoder.pos_embed, nn.Parameter)
            self.vit.pos_embed.requires_grad_(not fixed)  # type: ignore[operator]
        self._ours = encoder.requires_grad_(False)

    def ours(self, trained: nn.Module) -> nn.Module:
        """Our encoder with the weights of a trained `vit`."""
        missing = set(self._ours.load_state_dict(trained.state_dict(), strict=False).missing_keys)
        if missing - {"mask_token"}:  # which whole images do not meet
            raise ValueError(f"the trained network lacks {', '.join(sorted(missing))}")
        return self._ours


class Peer(Protocol):
    """A library's training, a stretch at a time."""

    @property
    def encoder(self) -> nn.Module:
        """What is judged: images to `Features`."""

    def advance(self, steps: int) -> None:
        """Trains for so many steps."""


class Files(Dataset[Any]):
    """Image files opened with Pillow, as torchvision's `ImageFolder` opens them."""

    def __init__(self, files: Sequence[str], transform: Callable[[Any], Any]) -> None:
        self.files, self.transform = list(files), transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        with open(self.files[index], "rb") as file:
            return self.transform(Image.open(file).convert("RGB"))


def loader(
    setup: Setup,
    transform: Callable[[Any], Any],
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Shuffled batches of the training images, as the peers' examples load them."""
    return DataLoader(
        Files(setup.files, transform),
        batch_size=setup.recipe.train.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=collate,
        num_workers=setup.workers,
        persistent_workers=setup.workers > 0,
    )


def paced(
    setup: Setup, groups: list[dict[str, Any]]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """torch's AdamW or SGD at the recipe's rates, and the recipe's schedule of them, by steps."""
    train, of = setup.recipe.train, setup.recipe.optimizer
    made: torch.optim.Optimizer
    if of.name == "adamw":
        made = torch.optim.AdamW(groups, lr=of.lr, betas=of.betas, weight_decay=of.weight_decay)
    elif of.name == "sgd":
        made = torch.optim.SGD(groups, lr=of.lr, momentum=of.momentum, weight_decay=of.weight_decay)
    else:
        raise ValueError(f"a race knows adamw and sgd, the recipe has {of.name}")
    warmup = round(of.warmup * train.steps)
    rate = warmup_cosine(1.0, warmup=warmup, end=of.end_lr / of.lr)
    return made, torch.optim.lr_scheduler.LambdaLR(made, lambda step: rate(step, train.steps))


class Backbone(nn.Module):
    """Our encoder as examples want a backbone: images in, `[B, D]` out."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.encoder(images).pooled
        return pooled
