"""Methods of audio alone, one file each; `METHODS` is their registry."""

METHODS: dict[str, str] = {}
