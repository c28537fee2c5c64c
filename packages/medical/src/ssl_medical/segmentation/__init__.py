"""Segmentation on a pretrained encoder: labelled blocks, a dense network, Dice and HD95."""
