"""Reading scans: every format gives the same voxels in the same place, and bad ones say why."""

import zlib
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import JPEGLSLossless

from ssl_core.batch import Record
from ssl_core.errors import CorruptSample, UserError
from ssl_core.recipe import Data
from ssl_medical.bricks import Bricks, cut, stored
from ssl_medical.domain import MEDICAL
from ssl_medical.files.open import read_volume
from ssl_medical.prepare import SCALE, Preparation, foreground, to_ras, to_spacing, window_of
from ssl_medical.reader import ReaderOptions, VolumeReader
from ssl_medical.samples import write_series

VOXELS = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
AFFINE = np.array([[2.0, 0, 0, -9], [0, 3, 0, 5], [0, 0, 4, 7], [0, 0, 0, 1]])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nifti(path: Path, data=VOXELS, affine=AFFINE) -> str:
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return str(path)


def mha(path: Path, data=VOXELS, *, packed=False, **changed) -> str:
    affine = LPS @ AFFINE
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "CompressedData": str(packed),
        "TransformMatrix": " ".join(map(str, (affine[:3, :3] / spacing).T.ravel())),
        "Offset": " ".join(map(str, affine[:3, 3])),
        "ElementSpacing": " ".join(map(str, spacing)),
        "DimSize": " ".join(map(str, data.shape)),
        "ElementType": "MET_SHORT",
        **changed,
        "ElementDataFile": "LOCAL",
    }
    raw = data.astype("<i2").tobytes(order="F")
    head = "".join(f"{name} = {value}\n" for name, value in fields.items()).encode()
    path.write_bytes(head + (zlib.compress(raw) if packed else raw))
    return str(path)


def nrrd_file(path: Path, encoding: str) -> str:
    affine = LPS @ AFFINE
    header = {
        "space": "left-posterior-superior",
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "encoding": encoding,
    }
    nrrd.write(str(path), VOXELS, header)
    return str(path)


def test_all_formats_give_the_same_scan(tmp_path) -> None:
    write_series(tmp_path / "series", VOXELS.astype(np.float32), AFFINE)
    files = [
        nifti(tmp_path / "a.nii"),
        nifti(tmp_path / "a.nii.gz"),
        mha(tmp_path / "a.mha"),
        mha(tmp_path / "b.mha", packed=True),
        nrrd_file(tmp_path / "a.nrrd", "raw"),
        nrrd_file(tmp_path / "b.nrrd", "gzip"),
        str(tmp_path / "series"),
    ]
    for file in files:
        volume = read_volume(file)
        data, affine = to_ras(volume.data, volume.affine)
        assert np.array_equal(data[0], VOXELS), file
        np.testing.assert_allclose(affine, AFFINE, atol=1e-4, err_msg=file)
        np.testing.assert_allclose(sorted(volume.spacing), [2, 3, 4], rtol=1e-5)
    assert read_volume(files[-1]).modality == "CT"


def test_scans_turned_in_memory_are_turned_back(tmp_path) -> None:
    for codes in (("L", "P", "S"), ("I", "R", "A"), ("S", "L", "P")):
        turn = nibabel.orientations.axcodes2ornt(codes)
        image = nibabel.Nifti1Image(VOXELS, AFFINE).as_reoriented(turn)
        nibabel.save(image, tmp_path / "turned.nii")
        volume = read_volume(str(tmp_path / "turned.nii"))
        data, affine = to_ras(volume.data, volume.affine)
        assert np.array_equal(data[0], VOXELS)
        np.testing.assert_allclose(affine, AFFINE, atol=1e-9)


def test_resampling_keeps_faces_means_and_labels() -> None:
    ramp = np.broadcast_to(np.arange(8.0, dtype=np.float32)[None, :, None, None], (1, 8, 4, 2))
    half, affine = to_spacing(ramp, np.eye(4), (2.0, 1.0, 1.0))
    assert half.shape == (1, 4, 4, 2)
    np.testing.assert_allclose(half[0, 1:3, 0, 0], [2.5, 4.5])  # centres of voxels 2,3 and 4,5
    np.testing.assert_allclose(affine[:3, 3], [0.5, 0, 0])  # the outer face stays at -0.5
    np.testing.assert_allclose(half.mean(), ramp.mean(), rtol=1e-6)
    fine, _ = to_spacing(ramp, np.eye(4), (0.5, 1.0, 1.0))
    np.testing.assert_allclose(fine[0, 1:-1, 0, 0], np.arange(14) / 2 + 0.25)
    labels, _ = to_spacing(np.round(ramp), np.eye(4), (0.4, 1.0, 1.0), nearest=True)
    assert set(np.unique(labels)) == set(range(8))


def test_intensities_and_foreground() -> None:
    data = np.array([-2000.0, -175.0, 37.5, 250.0, 900.0], np.float32).reshape(1, 5, 1, 1)
    unit = Preparation(scaling="window", window=window_of("abdomen")).scaled(data, "")
    np.testing.assert_allclose(unit.ravel(), [0, 0, 0.5, 1, 1])
    body = np.zeros((1, 6, 6, 6), np.float32)
    body[0, 2:4, 1:5, 3] = 1.0
    assert foreground(body) == (slice(2, 4), slice(1, 5), slice(3, 4))
    assert foreground(np.zeros((1, 2, 2, 2))) == (slice(None),) * 3
    mr = Preparation(scaling="auto").scaled(np.linspace(5, 905, 1000).reshape(1, 10, 10, 10), "MR")
    assert mr.min() == 0
    assert mr.max() == 1
    with pytest.raises(CorruptSample, match="constant"):
        Preparation().scaled(np.ones((1, 2, 2, 2)), "MR")
    with pytest.raises(UserError, match="window"):
        window_of("bone-ish")


def test_real_scans_that_libraries_ship() -> None:
    shipped = Path(nibabel.__file__).parent / "tests" / "data"
    brain = read_volume(str(shipped / "anatomical.nii"))
    want = nibabel.as_closest_canonical(nibabel.load(shipped / "anatomical.nii"))
    data, affine = to_ras(brain.data, brain.affine)
    np.testing.assert_allclose(data[0], np.asanyarray(want.dataobj), rtol=1e-6)
    np.testing.assert_allclose(affine, want.affine, atol=1e-5)
    series = shipped / "example4d.nii.gz"
    with pytest.raises(CorruptSample, match=r"4-D file of .*four_d"):
        read_volume(str(series))
    assert read_volume(str(series), four_d="first").data.shape[0] == 1
    assert read_volume(str(series), four_d="channels").data.shape[0] == 2
    slice_ = read_volume(get_testdata_file("CT_small.dcm"))
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    assert slice_.modality == "CT"
    assert np.array_equal(slice_.data[0, :, :, 0], dataset.pixel_array + dataset.RescaleIntercept)
    assert read_volume(get_testdata_file("MR_small.dcm")).modality == "MR"


def changed(folder: Path, change) -> str:
    """A series whose slices `change(number, dataset)` has altered; it returns False to drop one."""
    write_series(folder, np.repeat(VOXELS, 2, axis=2).astype(np.float32), AFFINE)
    for number, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        if change(number, dataset) is False:
            file.unlink()
        else:
            dataset.save_as(file)
    return str(folder)


def moved(number, dataset) -> None:
    if number == 4:
        dataset.ImagePositionPatient[2] = float(dataset.ImagePositionPatient[2]) + 1.3


def turned(number, dataset) -> None:
    if number == 0:
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def doubled(number, dataset) -> None:
    if number == 1:
        dataset.ImagePositionPatient[2] = float(dataset.ImagePositionPatient[2]) - 4


def other(number, dataset) -> None:
    if number == 2:
        dataset.SeriesInstanceUID = "1.2.3"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda number, _: number not in (3, 4),
            "2 slices are missing, the first after slice 3 of",
        ),
        (moved, "slice distances vary"),
        (turned, "differ in orientation"),
        (doubled, "same position"),
        (other, "several series"),
    ],
)
def test_broken_series_say_what_is_wrong(tmp_path, change, reason) -> None:
    with pytest.raises(CorruptSample, match=reason):
        read_volume(changed(tmp_path / "series", change))


def test_order_of_files_does_not_matter(tmp_path) -> None:
    folder = tmp_path / "series"
    write_series(folder, VOXELS.astype(np.float32), AFFINE)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"{(number * 7) % 5}-{number}.dcm")
    assert np.array_equal(to_ras(*_parts(read_volume(str(folder))))[0][0], VOXELS)


def _parts(volume):
    return volume.data, volume.affine


def test_a_missing_codec_is_named(tmp_path, monkeypatch) -> None:
    name = get_testdata_file("MR_small_jpeg_ls_lossless.dcm")
    dataset = pydicom.dcmread(name)
    assert dataset.file_meta.TransferSyntaxUID == JPEGLSLossless
    if MEDICAL.abilities()["compressed DICOM"].find("JPEG-LS") >= 0:
        pytest.skip("a JPEG-LS codec is installed")
    with pytest.raises(CorruptSample, match=r"JPEG-LS.*pylibjpeg"):
        read_volume(name)


def test_bad_files_are_refused_before_they_cost_anything(tmp_path) -> None:
    def refused(path: str, match: str, **options) -> None:
        with pytest.raises(CorruptSample, match=match):
            read_volume(path, **options)

    holes = VOXELS.astype(np.float32)
    holes[0, 0, :2] = np.nan, np.inf
    refused(nifti(tmp_path / "nan.nii", holes), "2 voxels are NaN or infinite")
    flat = AFFINE.copy()
    flat[:3, 1] = 0
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    image.header.set_sform(flat, code=1)
    image.header["qform_code"] = 0
    image.header["pixdim"][2] = 0
    with (tmp_path / "zero.nii").open("wb") as file:
        file.write(image.header.binaryblock + b"\0" * 4 + VOXELS.tobytes(order="F"))
    refused(str(tmp_path / "zero.nii"), "spacing|affine|axes")
    refused(nifti(tmp_path / "big.nii.gz"), "exceed the cap of 100 .max_voxels.", max_voxels=100)
    whole = Path(nifti(tmp_path / "cut.nii.gz")).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    refused(str(tmp_path / "cut.nii.gz"), "NIfTI")
    (tmp_path / "text.nii").write_text("hello")
    refused(str(tmp_path / "text.nii"), "NIfTI")
    refused(mha(tmp_path / "few.mha", DimSize="6 5 400"), "ends after")
    refused(mha(tmp_path / "sp.mha", ElementSpacing="1 0 1"), "spacing 1 x 0 x 1 mm")
    refused(mha(tmp_path / "out.mha", ElementType="MET_LONG_DOUBLE"), "MET_LONG_DOUBLE")
    (tmp_path / "a.mha").write_bytes(b"PNG\n\x00")
    refused(str(tmp_path / "a.mha"), "MHA")
    refused(str(tmp_path / "gone.nii"), "does not exist")
    refused(nifti(tmp_path / "five.nii", VOXELS[..., None, None].repeat(2, 4)), "5-D")


def test_what_nibabel_mends_is_not_logged_and_its_log_left_as_it_was(tmp_path, caplog) -> None:
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    image.header.set_sform(AFFINE, code=1)
    image.header["qform_code"], image.header["pixdim"][2] = 0, 0
    content = image.header.binaryblock + b"\0" * 4 + VOXELS.tobytes(order="F")
    (tmp_path / "zero.nii").write_bytes(content)
    log = nibabel.imageglobals.logger
    handlers = list(log.handlers)
    np.testing.assert_allclose(read_volume(str(tmp_path / "zero.nii")).affine, AFFINE)
    assert not caplog.records
    assert log.handlers == handlers
    log.warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]


def test_bricks_return_any_block_with_zeros_outside(tmp_path) -> None:
    voxels = np.random.default_rng(1).integers(1, 99, (2, 70, 33, 40)).astype(np.int16)
    padded = np.pad(voxels, ((0, 0), (8, 8), (8, 8), (8, 8)))
    file = tmp_path / "scan.bin"
    file.write_bytes(b"x")
    calls = []

    def make() -> np.ndarray:
        calls.append(1)
        return voxels

    on_disk = [stored(tmp_path / "packed", str(file), "s", make) for _ in range(2)][1]
    assert len(calls) == 1
    assert isinstance(on_disk.cubes, np.memmap)
    for bricks in (cut(voxels), on_disk):
        for corner, block in (
            ((0, 0, 0), (70, 33, 40)),
            ((-8, 5, 31), (40, 30, 9)),
            ((31, 1, 0), (2, 2, 2)),
        ):
            x, y, z = (slice(c + 8, c + 8 + b) for c, b in zip(corner, block, strict=True))
            assert np.array_equal(bricks.read(corner, block), padded[:, x, y, z])
    stored(tmp_path / "packed", str(file), "other settings", make)
    assert len(calls) == 2
    assert isinstance(on_disk, Bricks)


def test_large_scans_give_another_block_for_every_key(tmp_path) -> None:
    voxels = np.random.default_rng(2).integers(0, 900, (40, 30, 20)).astype(np.int16)
    for name in ("a", "b"):
        nifti(tmp_path / f"{name}.nii.gz", voxels, np.eye(4))
    source = MEDICAL.open(Data(path=str(tmp_path)))
    options = ReaderOptions(block=(16, 16, 16), crop=False, packed=str(tmp_path / "packed"))
    reader = VolumeReader.fit(source, options)
    assert reader.draws
    whole = reader.prepared(source[0])
    corners = set()
    for key in range(50):
        block = reader.draw(source[0], key)
        x, y, z = block.corner
        assert np.array_equal(block.data.numpy(), whole[:, x : x + 16, y : y + 16, z : z + 16])
        corners.add(block.corner)
    assert len(corners) > 40
    assert reader.decode(source[0]).corner == (12, 7, 2)
    assert reader.draw(source[0], 3).corner == reader.draw(source[0], 3).corner
    assert len(list((tmp_path / "packed").glob("*.npy"))) == 1, "one file a scan, made once"
    slices = VolumeReader.fit(source, ReaderOptions(slices=True, crop=False))
    assert slices.draw(source[0], 1).data.shape == (1, 40, 30, 1)


def test_several_channels_are_scaled_one_by_one(tmp_path) -> None:
    both = np.stack([VOXELS, VOXELS * 3 + 7]).astype(np.float32)
    reader = VolumeReader.fit([Record("a", both)], ReaderOptions(crop=False))  # type: ignore[arg-type]
    assert reader.spec["channels"] == 2
    block = reader.decode(Record("a", both)).data
    assert (block[0] - block[1]).abs().max() <= 1, "the same scan at another scale and offset"
    assert block.max() == SCALE
    with pytest.raises(CorruptSample, match="1 channels where others have 2"):
        reader.decode(Record("b", VOXELS))


NAME = "DOE^JANE"


def test_no_identifier_leaves_the_files(tmp_path, monkeypatch) -> None:
    import ssl_medical

    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    tags = {"PatientName": NAME, "PatientID": "ID-QX-4711-ZK", "PatientBirthDate": "19680229",
            "InstitutionName": "St Elsewhere"}  # fmt: skip
    for number in range(8):
        data = np.roll(np.repeat(np.repeat(np.repeat(VOXELS, 3, 0), 3, 1), 4, 2), number, 0)
        own = tags | {"PatientID": f"ID-QX-4711-ZK-{number // 2}"}
        write_series(tmp_path / "scans" / f"s{number}", data.astype(np.float32), AFFINE, tags=own)
    (tmp_path / "scans" / "s9").mkdir()
    (tmp_path / "scans" / "s9" / "0.dcm").write_bytes(NAME.encode() * 40)
    source = MEDICAL.open(Data(path=str(tmp_path / "scans")))
    groups = [source[i].meta["group"] for i in range(8)]
    assert len(set(groups)) == 4
    assert groups[0] == groups[1]
    assert "QX-4711-ZK" not in "".join(groups)
    run = ssl_medical.pretrain(
        data=str(tmp_path / "scans"),
        method="simclr",
        out=str(tmp_path / "run"),
        steps=2,
        batch_size=4,
        settings={
            "views.size": 8, "method.hidden": 8, "method.dim": 4, "data.max_corrupt": 1.0,
            "encoder.widths": [4, 8], "data.holdout": 0.3, "data.workers": 0,
        },
        progress=False,
    )  # fmt: skip
    assert "s9" in Path(run.path, "corrupt.jsonl").read_text()
    for place in (run.path, tmp_path / "cache"):
        for file in Path(place).rglob("*"):
            content = file.read_bytes() if file.is_file() else b""
            for word in (NAME, "JANE", "QX-4711-ZK", "19680229", "Elsewhere"):
                assert word.encode() not in content, f"{word} in {file}"
