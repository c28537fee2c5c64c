"""The `ssl-video` command; also `python -m ssl_video`, which torchrun needs."""

from ssl_core.cli import command_line

main = command_line("ssl_video.domain:VIDEO", name="video")

if __name__ == "__main__":
    main()
