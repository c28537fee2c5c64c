"""The command line of every domain, from one factory.

    main = command_line("ssl_vision.domain:VISION", name="vision")

Building it imports neither torch nor the domain: both come in when a command runs.
"""

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

from ssl_core.cli.main import command_line

__all__ = ["command_line"]
