"""Self-supervised learning for video: clips from files, on-device views, encoders, the ssl-video command."""
