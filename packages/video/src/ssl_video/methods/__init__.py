"""Methods of video alone, by name."""

METHODS: dict[str, str] = {}
"""Name -> "module:Class"; the core's methods are declared beside them in the domain."""
