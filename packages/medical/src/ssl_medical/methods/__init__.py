"""Methods that only scans have, by name."""

METHODS: dict[str, str] = {}
