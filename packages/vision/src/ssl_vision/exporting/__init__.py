"""Encoders as folders that timm, torchvision and transformers load."""
