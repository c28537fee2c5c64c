"""ssl_text."""
