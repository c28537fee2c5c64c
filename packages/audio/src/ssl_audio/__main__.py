"""The `ssl-audio` command; also `python -m ssl_audio`, which torchrun needs."""

from ssl_core.cli import command_line

main = command_line("ssl_audio.domain:AUDIO", name="audio")

if __name__ == "__main__":
    main()
