"""Self-supervised learning for medical volumes: NIfTI and DICOM, on-device 3-D views, encoders, the ssl-medical command."""
