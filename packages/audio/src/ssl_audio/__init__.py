"""Self-supervised learning for audio."""
