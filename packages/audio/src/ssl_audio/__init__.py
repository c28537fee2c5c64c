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
        "decode_audio": "ssl_audio.decode:decode_audio",
        "write_samples": "ssl_audio.samples:write_samples",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
