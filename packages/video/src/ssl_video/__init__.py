"""Self-supervised learning for video."""
