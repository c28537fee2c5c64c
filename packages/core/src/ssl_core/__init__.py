"""ssl_core: objectives, networks, methods, data plumbing and the training engine.

Importing this package imports no submodule; take what you need, for instance
`from ssl_core.objectives import nt_xent`.
"""

__version__ = "0.1.0"
