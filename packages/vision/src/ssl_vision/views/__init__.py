"""View policies by name; `ssl_vision.views.policies` builds them."""

VIEWS = {
    name: f"ssl_vision.views.policies:{name}"
    for name in ("simclr", "byol", "dino", "ressl", "pirl", "weak", "mae", "none")
} | {"captioned": "ssl_vision.views.captioned:captioned"}
