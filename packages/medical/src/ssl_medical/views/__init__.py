"""View policies by name; `ssl_medical.views.policies` builds them."""

VIEWS = {
    name: f"ssl_medical.views.policies:{name}" for name in ("pairs", "dino", "mae", "weak", "none")
}
