"""ssl_core: objectives, networks, methods, data plumbing and the training engine.

Importing this package imports no submodule; a name is imported when it is first used.

    import ssl_core
    ssl_core.fit(method, data, steps=1000)     # a method of your own on tensors of your own
    model = ssl_core.load("runs/photos")       # a run of any domain
    vectors = model.embed("photos/")           # float32 [N, dim]
"""

from __future__ import annotations

from ssl_core.surface import lazy

__version__ = "0.1.0"

__getattr__, __all__ = lazy(
    __name__,
    {
        **{
            name: f"ssl_core.api:{name}"
            for name in ("build_recipe", "evaluate", "export", "finetune", "load", "pretrain")
        },
        "resume": "ssl_core.api:resume",
        "fit": "ssl_core.fitting:fit",
        "FitResult": "ssl_core.engine.fit:FitResult",
        "Model": "ssl_core.runs.model:Model",
        "Run": "ssl_core.runs.folder:Run",
        "Recipe": "ssl_core.recipe:Recipe",
        "Domain": "ssl_core.domain:Domain",
        "Batch": "ssl_core.batch:Batch",
        "Record": "ssl_core.batch:Record",
        "View": "ssl_core.views:View",
        "Features": "ssl_core.encoder:Features",
        "Method": "ssl_core.methods.base:Method",
        "Loss": "ssl_core.methods.base:Loss",
        "Rng": "ssl_core.rng:Rng",
        "UserError": "ssl_core.errors:UserError",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
