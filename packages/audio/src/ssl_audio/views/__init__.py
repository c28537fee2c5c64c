"""View policies by name; `ssl_audio.views.policies` builds them."""

VIEWS = {
    name: f"ssl_audio.views.policies:{name}"
    for name in ("simclr", "byol", "dino", "mae", "frames", "wave", "none")
}
