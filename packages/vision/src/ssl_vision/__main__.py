"""The `ssl-vision` command; also `python -m ssl_vision`, which torchrun needs."""

from ssl_core.cli import command_line

main = command_line("ssl_vision.domain:VISION", name="vision")

if __name__ == "__main__":
    main()
