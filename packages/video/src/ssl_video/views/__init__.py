"""View policies by name; `ssl_video.views.policies` builds them."""

VIEWS = {name: f"ssl_video.views.policies:{name}" for name in ("clips", "dino", "mae", "none")} | {
    name: f"ssl_video.views.pretexts:{name}"
    for name in ("order", "geometry", "pace", "speeds", "triplet", "decoupled", "derivatives")
}
