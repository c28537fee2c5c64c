"""Methods of two views as lightly's own examples train them; used by `learning_lightly.py`."""

from __future__ import annotations

import copy

import torch
from learning_parts import Setup
from lightly import loss as losses
from lightly import transforms
from lightly.models import modules, utils
from lightly.models.modules import heads
from lightly_base import Model, momentum
from torch import Tensor, nn


def simclr_views(setup: Setup) -> transforms.SimCLRTransform:
    views = setup.recipe.views.options
    return transforms.SimCLRTransform(
        input_size=views["size"],
        cj_strength=views["strength"],
        min_scale=views["scale"][0],
        random_gray_scale=views["grey"],
        gaussian_blur=0.0,
        hf_prob=views["flip"],
        normalize=setup.normalise,
    )


def byol_views(setup: Setup) -> transforms.BYOLTransform:
    views = setup.recipe.views.options
    same = {
        "input_size": views["size"],
        "min_scale": views["scale"][0],
        "random_gray_scale": views["grey"],
        "hf_prob": views["flip"],
        "gaussian_blur": 0.0,
        "normalize": setup.normalise,
    }
    first, second = views["solarise"]
    return transforms.BYOLTransform(
        transforms.BYOLView1Transform(solarization_prob=first, **same),
        transforms.BYOLView2Transform(solarization_prob=second, **same),
    )


class Pair(Model):
    """Two views of an image as the recipe draws them, and the widths of its head."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        drawn = {"simclr": simclr_views, "byol": byol_views}
        self.transform = drawn[setup.recipe.views.name](setup)
        self.hidden: int = setup.option("method", "hidden")
        self.dim: int = setup.option("method", "dim")


class Alike(Pair):
    """One head, and a loss of both views' projections."""

    projection_head: nn.Module
    criterion: nn.Module

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        z0, z1 = (self.projection_head(self.backbone(view)) for view in views)
        return self.criterion(z0, z1)


class SimCLR(Alike):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of = setup.recipe.method.options
        self.projection_head = modules.SimCLRProjectionHead(self.width, self.hidden, self.dim)
        kind = losses.DCLLoss if of.get("decoupled") else losses.NTXentLoss
        self.criterion = kind(temperature=of["temperature"])


class BarlowTwins(Alike):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.projection_head = modules.BarlowTwinsProjectionHead(self.width, self.hidden, self.dim)
        self.criterion = losses.BarlowTwinsLoss(lambda_param=setup.option("method", "lambd"))


class VICReg(Alike):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        sizes = (self.width, self.hidden, self.dim)
        self.projection_head = heads.VICRegProjectionHead(*sizes, num_layers=3)
        self.criterion = losses.VICRegLoss()


class WMSE(Alike):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        # No head bears the method's name; BYOL's has the layers that the authors' has.
        self.projection_head = modules.BYOLProjectionHead(self.width, self.hidden, self.dim)
        self.whitened = losses.WMSELoss(self.dim, w_size=setup.option("method", "size"))

    def criterion(self, z0: Tensor, z1: Tensor) -> Tensor:  # type: ignore[override]
        return self.whitened(torch.cat([z0, z1]))


class VICRegL(Model):
    """Two views, which come with the places of their cells."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of, views = setup.recipe.method.options, setup.recipe.views.options
        with torch.no_grad():
            sample = torch.zeros(1, 3, views["size"], views["size"])
            self.grid: int = setup.encoder.eval()(sample).grid[0]
        self.projection_head = modules.BarlowTwinsProjectionHead(
            self.width, of["hidden"], of["dim"]
        )
        self.local_projection_head = heads.VicRegLLocalProjectionHead(
            self.width, of["local_hidden"], of["local_dim"]
        )
        self.criterion = losses.VICRegLLoss(num_matches=tuple(of["matches"]))
        # Colours as `simclr_views` draws them, by that transform's names.
        self.transform = transforms.VICRegLTransform(
            global_crop_size=views["size"],
            n_local_views=0,
            global_crop_scale=tuple(views["scale"]),
            global_grid_size=self.grid,
            global_gaussian_blur_prob=0.0,
            hf_prob=views["flip"],
            cj_prob=0.8,
            cj_strength=views["strength"],
            cj_sat=0.8,
            random_gray_scale=views["grey"],
            normalize=setup.normalise,
        )

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        features = [self._features(view) for view in views[:2]]
        loss: Tensor = self.criterion(global_view_features=features, global_view_grids=views[2:])
        return loss.squeeze()

    def _features(self, view: Tensor) -> tuple[Tensor, Tensor]:
        found = self.backbone.encoder(view)
        places = found.tokens.unflatten(1, (self.grid, self.grid))
        return self.projection_head(found.pooled), self.local_projection_head(places)


class SimSiam(Pair):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        narrow: int = setup.option("method", "predictor_hidden")
        self.projection_head = modules.SimSiamProjectionHead(self.width, self.hidden, self.dim)
        self.prediction_head = modules.SimSiamPredictionHead(self.dim, narrow, self.dim)
        self.criterion = losses.NegativeCosineSimilarity()

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        z0, z1 = (self.projection_head(self.backbone(view)) for view in views)
        p0, p1 = self.prediction_head(z0), self.prediction_head(z1)
        return 0.5 * (self.criterion(z0.detach(), p1) + self.criterion(z1.detach(), p0))


class NNCLR(Pair):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of = setup.recipe.method.options
        self.projection_head = modules.NNCLRProjectionHead(self.width, self.hidden, self.dim)
        sizes = (self.dim, of["predictor_hidden"], self.dim)
        self.prediction_head = modules.NNCLRPredictionHead(*sizes)
        self.memory_bank = modules.NNMemoryBankModule(size=(of["queue"], self.dim))
        self.criterion = losses.NTXentLoss(temperature=of["temperature"])

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        z0, z1 = (self.projection_head(self.backbone(view)) for view in views)
        p0, p1 = self.prediction_head(z0), self.prediction_head(z1)
        n0 = self.memory_bank(z0.detach(), update=False)
        n1 = self.memory_bank(z1.detach(), update=True)
        return 0.5 * (self.criterion(n0, p1) + self.criterion(n1, p0))


class Taught(Pair):
    """A slow copy of backbone and head beside them."""

    projection_head: nn.Module

    def slow_copy(self) -> None:
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        utils.deactivate_requires_grad(self.backbone_momentum)
        utils.deactivate_requires_grad(self.projection_head_momentum)

    def advance_copy(self, share: float) -> None:
        m = momentum(self.setup, share)
        utils.update_momentum(self.backbone, self.backbone_momentum, m=m)
        utils.update_momentum(self.projection_head, self.projection_head_momentum, m=m)

    def project(self, view: Tensor) -> Tensor:
        projected: Tensor = self.projection_head(self.backbone(view))
        return projected

    @torch.no_grad()
    def project_slowly(self, view: Tensor) -> Tensor:
        projected: Tensor = self.projection_head_momentum(self.backbone_momentum(view))
        return projected


class OneWay(Taught):
    """A loss of the first view's projection and the slow copy's of the second."""

    criterion: nn.Module

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        self.advance_copy(share)
        return self.criterion(self.project(views[0]), self.project_slowly(views[1]))


class MoCo(OneWay):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of = setup.recipe.method.options
        self.projection_head = modules.MoCoProjectionHead(self.width, self.hidden, self.dim)
        self.slow_copy()
        size = (of["queue"], self.dim)
        self.criterion = losses.NTXentLoss(temperature=of["temperature"], memory_bank_size=size)


class TiCo(OneWay):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.projection_head = heads.TiCoProjectionHead(self.width, self.hidden, self.dim)
        self.slow_copy()
        self.criterion = losses.TiCoLoss(rho=setup.option("method", "rho"))


class BYOL(Taught):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.projection_head = modules.BYOLProjectionHead(self.width, self.hidden, self.dim)
        self.prediction_head = modules.BYOLPredictionHead(self.dim, self.hidden, self.dim)
        self.slow_copy()
        self.criterion = losses.NegativeCosineSimilarity()

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        self.advance_copy(share)
        p0, p1 = (self.prediction_head(self.project(view)) for view in views)
        z0, z1 = (self.project_slowly(view) for view in views)
        return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))
