"""Reading videos: which frames to decode, and the backends that decode them."""
