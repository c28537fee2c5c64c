"""Encoders for audio by name, for a registry; nothing is imported here."""

from __future__ import annotations

_SIZES = ("nano", "tiny", "small", "base")

ENCODERS = {
    "audio_cnn": "ssl_audio.encoders.cnn:audio_cnn",
    **{
        f"spec_vit_{size}_{cut}": f"ssl_audio.encoders.spectrogram_vit:spec_vit_{size}_{cut}"
        for size in _SIZES
        for cut in ("patch8", "patch16", "frame1", "frame2", "frame4")
    },
    **{
        f"wave_{size}": f"ssl_audio.encoders.wave:wave_{size}" for size in ("nano", "small", "base")
    },
    **{
        f"{kind}_{size}": f"ssl_audio.encoders.recurrent:{kind}_{size}"
        for kind in ("gru", "cpc")
        for size in ("nano", "base")
    },
    **{f"ast_{size}": f"ssl_audio.encoders.ast:ast_{size}" for size in ("tiny", "small", "base")},
}
