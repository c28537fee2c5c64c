"""View policies by name; `policies` and `pretexts` build them."""

VIEWS = {
    name: f"ssl_medical.views.policies:{name}" for name in ("pairs", "dino", "mae", "weak", "none")
} | {
    name: f"ssl_medical.views.pretexts:{name}" for name in ("restore", "cutouts", "slices", "voco")
}
