"""Methods of video alone, by name."""

METHODS = {
    name: f"ssl_video.methods.{name}:{cls}"
    for name, cls in {
        "clip_order": "ClipOrder",
        "pace": "Pace",
        "vididi": "ViDiDi",
        "hdc": "HDC",
        "ultrasound": "Ultrasound",
        "tov_vicreg": "TOVVICReg",
        "rspnet": "RSPNet",
    }.items()
}
"""Name -> "module:Class"; the core's methods are declared beside them in the domain."""
