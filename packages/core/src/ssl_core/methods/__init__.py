"""Methods: one file each, named by their papers.

`METHODS` lists what the core offers; a domain declares those that make sense for it with
`pick(...)` and adds its own.
"""

from __future__ import annotations

METHODS = {
    "simclr": "ssl_core.methods.simclr:SimCLR",
    "moco": "ssl_core.methods.moco:MoCo",
    "moco_v3": "ssl_core.methods.moco_v3:MoCoV3",
    "nnclr": "ssl_core.methods.nnclr:NNCLR",
    "pirl": "ssl_core.methods.pirl:PIRL",
    "sup_con": "ssl_core.methods.sup_con:SupCon",
    "clip": "ssl_core.methods.clip:CLIP",
    "byol": "ssl_core.methods.byol:BYOL",
    "simsiam": "ssl_core.methods.simsiam:SimSiam",
    "ressl": "ssl_core.methods.ressl:ReSSL",
    "swav": "ssl_core.methods.swav:SwAV",
    "dino": "ssl_core.methods.dino:DINO",
    "ibot": "ssl_core.methods.ibot:IBOT",
    "dinov2": "ssl_core.methods.ibot:dinov2",
    "msn": "ssl_core.methods.msn:MSN",
    "barlow_twins": "ssl_core.methods.barlow_twins:BarlowTwins",
    "vicreg": "ssl_core.methods.vicreg:VICReg",
    "vicregl": "ssl_core.methods.vicregl:VICRegL",
    "lvm_med": "ssl_core.methods.lvm_med:LVMMed",
    "tico": "ssl_core.methods.tico:TiCo",
    "w_mse": "ssl_core.methods.w_mse:WMSE",
    "lejepa": "ssl_core.methods.lejepa:LeJEPA",
    "seed": "ssl_core.methods.seed:SEED",
    "feature_distillation": "ssl_core.methods.feature_distillation:FeatureDistillation",
    "mae": "ssl_core.methods.mae:MAE",
    "simmim": "ssl_core.methods.simmim:SimMIM",
    "data2vec": "ssl_core.methods.data2vec:Data2Vec",
    "ijepa": "ssl_core.methods.ijepa:IJEPA",
    "spark": "ssl_core.methods.spark:SparK",
    "maskfeat": "ssl_core.methods.maskfeat:MaskFeat",
    "beit": "ssl_core.methods.beit:BEiT",
    "mixmim": "ssl_core.methods.mixmim:MixMIM",
    "rotation": "ssl_core.methods.rotation:Rotation",
    "jigsaw": "ssl_core.methods.jigsaw:Jigsaw",
    "relative_patch": "ssl_core.methods.relative_patch:RelativePatch",
    "exemplar": "ssl_core.methods.exemplar:Exemplar",
    "inpainting": "ssl_core.methods.inpainting:Inpainting",
}

PAIRED = (
    *("simclr", "moco", "moco_v3", "nnclr", "sup_con", "byol", "simsiam", "ressl", "swav"),
    *("barlow_twins", "vicreg", "tico", "w_mse", "lejepa", "exemplar"),
    *("seed", "feature_distillation"),
)
"""Methods that ask for two views and pooled features alone: every domain has them."""


def pick(*names: str) -> dict[str, str]:
    """Registry entries of core methods by name."""
    return {name: METHODS[name] for name in names}
