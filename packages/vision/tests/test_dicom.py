"""DICOM slices: units, both greys, colour, several frames, damage, and without pydicom."""

import io

import numpy as np
import pytest
import torch

from ssl_core.errors import CorruptSample
from ssl_vision import dicom
from ssl_vision.decode import decode_image

pydicom = pytest.importorskip("pydicom")


def encoded(array: np.ndarray, kind: str = "MONOCHROME2", **tags) -> bytes:
    """An uncompressed DICOM file of `[H, W]`, `[H, W, 3]` or, with NumberOfFrames, frames first."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    found = FileDataset("x.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
    shape = array.shape[1:] if "NumberOfFrames" in tags else array.shape
    found.Rows, found.Columns = shape[:2]
    found.SamplesPerPixel = 3 if len(shape) == 3 else 1
    if found.SamplesPerPixel == 3:
        found.PlanarConfiguration = 0
    found.PhotometricInterpretation = kind
    found.BitsAllocated = found.BitsStored = array.dtype.itemsize * 8
    found.HighBit = found.BitsStored - 1
    found.PixelRepresentation = int(array.dtype.kind == "i")
    found.PatientName = "Somebody"
    for name, value in tags.items():
        setattr(found, name, value)
    found.PixelData = array.tobytes()
    stream = io.BytesIO()
    found.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


GREY = np.arange(24, dtype=np.uint16).reshape(4, 6) * 100


def test_grey_slices_are_in_their_units_and_of_one_type() -> None:
    image = decode_image(encoded(GREY, RescaleSlope="2", RescaleIntercept="-1024"))
    assert image.dtype == torch.float32
    assert np.array_equal(image[0], GREY * 2.0 - 1024)
    plain = decode_image(encoded(GREY))
    assert plain.dtype == torch.float32
    assert np.array_equal(plain[0], GREY)


def test_white_that_is_low_is_turned_round() -> None:
    turned = decode_image(encoded(GREY, "MONOCHROME1"))
    assert np.array_equal(turned[0], GREY.max() - GREY.astype(np.float32))


def test_colour_and_the_first_of_several_frames() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    image = decode_image(encoded(colour, "RGB"))
    assert (image.dtype, image.shape) == (torch.uint8, (3, 4, 6))
    assert np.array_equal(image.permute(1, 2, 0), colour)
    frames = np.stack([GREY, GREY[::-1]])
    assert np.array_equal(decode_image(encoded(frames, NumberOfFrames="2"))[0], GREY)


def test_damage_and_size_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(GREY)
    with pytest.raises(CorruptSample, match="exceed the cap of 20"):
        decode_image(whole, max_pixels=20)
    with pytest.raises(CorruptSample, match="DICOM"):
        decode_image(whole[:-20])
    with pytest.raises(CorruptSample, match="DICOM"):
        decode_image(whole[:200])
    monkeypatch.setattr(dicom.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CorruptSample, match=r"ssl-vision\[dicom\]"):
        decode_image(whole)
