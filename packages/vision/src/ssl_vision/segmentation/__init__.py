"""Dense segmentation on a pretrained encoder: pairs of image and mask, a light head, mean IoU."""
