"""Files made to cost memory or time: refused by what they claim, before it is paid."""

import gzip
import struct
import zlib

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ssl_core.errors import CorruptSample
from ssl_medical.files.dicom import patient_group
from ssl_medical.files.open import read_volume
from ssl_medical.files.volume import inflate
from ssl_medical.samples import write_series


def header_of(shape, *, before: int = 352, spacing=(1, 1, 1)) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header["pixdim"][1:4], header["vox_offset"], header["magic"] = spacing, before, b"n+1"
    return header.binaryblock


def test_files_that_claim_more_than_they_hold_are_refused_unread(tmp_path) -> None:
    zeros = gzip.compress(b"\0" * 1_000_000)

    def refused(name: str, content: bytes, match: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptSample, match=match):
            read_volume(str(tmp_path / name))

    large = (1024, 512, 512)
    bomb = gzip.compress(header_of(large) + b"\0" * 4) + zeros
    refused("bomb.nii.gz", bomb, "claim to expand to 536870912, .* no scan does")
    fields = "type: short\ndimension: 3\nsizes: 1024 512 512\nencoding: gzip\nendian: little\n"
    refused("bomb.nrrd", b"NRRD0004\n" + fields.encode() + b"\n" + zeros, "no scan does")
    with pytest.raises(CorruptSample, match="fewer"):
        read_volume(str(tmp_path / "bomb.nrrd"), sparse=True)
    huge = fields.replace("1024 512", "1000000 1000000")
    refused("huge.nrrd", b"NRRD0004\n" + huge.encode() + b"\n" + zeros, "exceed the cap")
    words = "NDims = 3\nDimSize = 1024 512 512\nElementType = MET_SHORT\nCompressedData = True\n"
    end = b"ElementDataFile = LOCAL\n"
    refused("bomb.mha", words.encode() + end + zeros, "no scan does")
    # nibabel reads as much for an extension as that claims to be long.
    for before, length in ((1 << 31, 1 << 30), (4096, 1 << 30), (4096, 0)):
        claim = header_of((4, 4, 4), before=before) + b"\1\0\0\0" + struct.pack("<ii", length, 4)
        refused("long.nii.gz", gzip.compress(claim) + zeros, "voxels begin|extension")
    honest = header_of((4, 4, 4), before=384) + b"\1\0\0\0" + struct.pack("<ii", 32, 4) + b"a" * 24
    (tmp_path / "with.nii.gz").write_bytes(gzip.compress(honest + b"\1" * 128))
    assert read_volume(str(tmp_path / "with.nii.gz")).data.shape == (1, 4, 4, 4)
    flat = header_of((4, 4, 4), spacing=(1, 0, 1)) + b"\0" * 4 + b"\1" * 128
    refused("flat.nii", flat, "spacing 1 x 0 x 1 mm")


def test_deflated_slices_are_read_and_bombs_among_them_not(tmp_path) -> None:
    write_series(tmp_path / "plain", np.zeros((4, 5, 1)), np.eye(4))
    (file,) = (tmp_path / "plain").iterdir()
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm")
    assert read_volume(str(tmp_path / "a.dcm")).data.shape == (1, 5, 4, 1)
    whole = (tmp_path / "a.dcm").read_bytes()
    start = 144 + pydicom.dcmread(tmp_path / "a.dcm").file_meta.FileMetaInformationGroupLength
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = machine.compress(zlib.decompress(whole[start:], -15))
    body += b"".join(machine.compress(b"\0" * (1 << 24)) for _ in range(5)) + machine.flush()
    (tmp_path / "a.dcm").write_bytes(whole[:start] + body)
    with pytest.raises(CorruptSample, match="deflated DICOM expands beyond"):
        read_volume(str(tmp_path / "a.dcm"))
    assert patient_group(str(tmp_path / "a.dcm")) == ""


def test_compressed_bombs_expand_no_further_than_their_header() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    with pytest.raises(CorruptSample, match="more than the 1000 bytes"):
        inflate(bomb, 1000)
    with pytest.raises(CorruptSample, match="fewer"):
        inflate(bomb, 20_000_000)
    with pytest.raises(CorruptSample, match="damaged"):
        inflate(b"not compressed", 10)
