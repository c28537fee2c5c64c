"""Methods that only scans have, by name."""

METHODS = {
    "models_genesis": "ssl_medical.methods.models_genesis:ModelsGenesis",
    "global_local": "ssl_medical.methods.global_local:GlobalLocal",
    "relative_position": "ssl_medical.methods.relative_position:RelativePosition",
    "voco": "ssl_medical.methods.voco:VoCo",
    "alice": "ssl_medical.methods.alice:Alice",
    "unet_inpainting": "ssl_medical.methods.unet_inpainting:UNetInpainting",
    "cswin_unet": "ssl_medical.methods.swin_unetr:cswin_unet",
    "swin_unetr": "ssl_medical.methods.swin_unetr:SwinUNETRPretext",
}
