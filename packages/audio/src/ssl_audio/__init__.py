"""Self-supervised learning for audio: wave files, spectrograms and views on the device, encoders.

Importing this package is cheap; torch is imported when one of its names is first used.

    import ssl_audio
    run = ssl_audio.pretrain(data="recordings/", method="byol", out="runs/recordings")
    vectors = ssl_audio.load(run).embed("recordings/")
"""

from __future__ import annotations

from ssl_core.surface import surface

__version__ = "0.1.0"

__getattr__, __all__ = surface(
    __name__,
    "ssl_audio.domain:AUDIO",
    {
        "AudioReader": "ssl_audio.reader:AudioReader",
        "abx_error": "ssl_audio.probes:abx_error",
        "decode_audio": "ssl_audio.decode:decode_audio",
        "detect_events": "ssl_audio.probes:detect_events",
        "embed_frames": "ssl_audio.frames:embed_frames",
        "log_mel": "ssl_audio.features:log_mel",
        "mean_average_precision": "ssl_audio.probes:mean_average_precision",
        "write_samples": "ssl_audio.samples:write_samples",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
