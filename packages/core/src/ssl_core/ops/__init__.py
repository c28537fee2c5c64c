"""Random operations on batches of images, one keyed draw a sample: what views are made of.

Every operation has `sample(rng) -> params` and `apply(x, params) -> x`. `pipeline.Augmentation`
joins them. Frames of clips and slices of volumes are images, too.
"""
