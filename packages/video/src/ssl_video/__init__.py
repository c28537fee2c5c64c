"""Self-supervised learning for video: clips from files, on-device views, encoders, the command.

Importing this package is cheap; torch is imported when one of its names is first used.

    import ssl_video
    run = ssl_video.pretrain(data="videos/", method="simclr", out="runs/videos")
    vectors = ssl_video.load(run.path).embed("videos/")
"""

from __future__ import annotations

from ssl_core.surface import surface

__version__ = "0.1.0"

__getattr__, __all__ = surface(
    __name__,
    "ssl_video.domain:VIDEO",
    {
        "VideoReader": "ssl_video.reader:VideoReader",
        "create_encoder": "ssl_video.encoders.create:create_encoder",
        "embed_frames": "ssl_video.frames:embed_frames",
        "open_video": "ssl_video.files.open:open_video",
        "write_samples": "ssl_video.samples:write_samples",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
