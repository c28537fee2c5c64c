"""The `ssl-medical` command; also `python -m ssl_medical`, which torchrun needs."""

from ssl_core.cli import command_line

main = command_line("ssl_medical.domain:MEDICAL", name="medical")

if __name__ == "__main__":
    main()
