"""View policies by name; each is a function of the data's facts."""

VIEWS = (
    {
        name: f"ssl_medical.views.policies:{name}"
        for name in ("pairs", "dino", "mae", "weak", "none")
    }
    | {
        name: f"ssl_medical.views.pretexts:{name}"
        for name in ("restore", "cutouts", "slices", "voco")
    }
    | {"dropped": "ssl_medical.views.dropped:dropped"}
)
