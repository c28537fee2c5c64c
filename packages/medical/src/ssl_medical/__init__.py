"""Self-supervised learning for medical volumes: NIfTI and DICOM, 3-D views on device, encoders.

Importing this package is cheap; torch is imported when one of its names is first used.

    import ssl_medical
    run = ssl_medical.pretrain(data="scans/", method="simclr", out="runs/scans")
    vectors = ssl_medical.load(run.path).embed("scans/")
"""

from __future__ import annotations

from ssl_core.surface import surface

__version__ = "0.1.0"

__getattr__, __all__ = surface(
    __name__,
    "ssl_medical.domain:MEDICAL",
    {
        "VolumeReader": "ssl_medical.reader:VolumeReader",
        "create_encoder": "ssl_medical.encoders.create:create_encoder",
        "read_volume": "ssl_medical.files.open:read_volume",
        "write_samples": "ssl_medical.samples:write_samples",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
