"""`python -m ssl_text` and the `ssl-text` command."""

from __future__ import annotations

from ssl_core.cli import command_line

main = command_line("ssl_text.domain:TEXT", name="text")

if __name__ == "__main__":
    main()
