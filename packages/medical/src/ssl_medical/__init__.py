"""Self-supervised learning for medical."""
