"""ssl_vision."""
