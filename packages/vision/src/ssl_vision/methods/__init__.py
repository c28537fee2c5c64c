"""Methods that make sense for images only."""

METHODS = {"colourisation": "ssl_vision.methods.colourisation:Colourisation"}
