"""Self-supervised learning for audio: wave files, on-device spectrograms and views, encoders, the ssl-audio command."""
