"""Samples, sources, pictures: what the command stands on."""

import csv

import nibabel
import numpy as np
import pytest
import torch

import ssl_medical
from ssl_core.data import split_holdout
from ssl_core.errors import UserError
from ssl_core.recipe import Data
from ssl_medical import samples
from ssl_medical.domain import MEDICAL
from ssl_medical.files.open import read_volume
from ssl_medical.picture import fullest, labelled
from ssl_medical.sources import open_volumes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantoms") / "scans"
    samples.write_samples(path, count=20, seed=3)
    return path


def test_samples_are_real_files_split_by_patient(folder, tmp_path) -> None:
    rows = list(csv.DictReader((folder / "volumes.csv").read_text().splitlines()))
    assert {row["label"] for row in rows} == set(samples.LESIONS)
    assert {row["modality"] for row in rows} == {"CT", "MR"}
    source = MEDICAL.open(Data(path=str(folder)))
    train, held = split_holdout(source, 0.2)
    patients = [{source[int(i)].meta["group"] for i in part.indices} for part in (train, held)]
    assert not patients[0] & patients[1]
    for row in (0, 7):
        scan = read_volume(source[row].payload)
        mask = read_volume(str(folder / rows[row]["mask"]))
        np.testing.assert_allclose(scan.spacing, samples.SPACING, rtol=1e-5)
        assert scan.data.shape == mask.data.shape
        assert set(np.unique(mask.data)) <= set(range(len(samples.ORGANS)))
        assert (mask.data == 6).sum() > 50, "the lesion is there"
    again = tmp_path / "again"
    samples.write_samples(again, count=20, seed=3)
    for row in rows:
        name = row["path"]
        if name.endswith(".gz"):
            assert (again / name).read_bytes() == (folder / name).read_bytes()
    with pytest.raises(UserError, match="not empty"):
        samples.write_samples(folder, count=20)
    with pytest.raises(UserError, match="at least 16"):
        samples.write_samples(tmp_path / "few", count=3)


def test_dicom_and_nifti_of_one_phantom_agree(tmp_path) -> None:
    phantom = next(p for n in range(40) if (p := samples.draw(0, 0, n)).modality == "CT")
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    samples.write_series(tmp_path / "series", phantom.data, affine)
    series = read_volume(str(tmp_path / "series"))
    from ssl_medical.prepare import to_ras

    data, _ = to_ras(series.data, series.affine)
    assert np.array_equal(data[0], phantom.data.round())


def test_folders_without_scans_are_refused(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"has no file ending in \.nii"):
        MEDICAL.open(Data(path=str(tmp_path)))
    with pytest.raises(UserError, match=r"holds no \.dcm"):
        MEDICAL.open(Data(path=str(tmp_path), format="dicom"))


def test_series_beside_files_are_scans_not_slices(tmp_path) -> None:
    """A folder of both once gave a scan of one slice for every DICOM file, without a word."""
    phantom = samples.draw(0, 0, 0)
    affine = np.diag([*samples.SPACING, 1.0])
    for name in ("one", "two"):
        series = tmp_path / "mixed" / name
        samples.write_series(series, phantom.data, affine, tags={"PatientID": "same"})
    image = nibabel.Nifti1Image(phantom.data, affine)
    nibabel.save(image, tmp_path / "mixed" / "three.nii.gz")
    source = open_volumes(str(tmp_path / "mixed"))
    assert [source[i].key for i in range(len(source))] == ["one", "three.nii.gz", "two"]
    groups = [source[i].meta["group"] for i in range(3)]
    assert groups[0] == groups[2] != groups[1]
    assert read_volume(source[0].payload).data.shape == (1, *samples.SIDES)
    nibabel.save(image, tmp_path / "mixed" / "one" / "four.nii.gz")
    with pytest.raises(UserError, match=r"beside four.nii.gz; move"):
        open_volumes(str(tmp_path / "mixed" / "one"))


def test_organs_have_no_brightness_of_their_own() -> None:
    """Which organ is the brighter differs between scans, as between sequences and phases."""
    brighter = []
    for number in range(24):
        phantom = samples.draw(0, number, number)
        liver, spleen = (phantom.data[phantom.organs == organ] for organ in (2, 3))
        brighter.append(np.median(liver) > np.median(spleen))
    assert 6 <= sum(brighter) <= 18


def test_labels_are_drawn_over_the_scan() -> None:
    labels = np.zeros((8, 8, 8), np.int64)
    labels[5, 2:4, 6] = (1, 2)
    assert fullest(labels)[0] == 5
    assert fullest(labels)[2] == 6
    picture = labelled(np.full((8, 8, 8), 0.5), labels, fullest(labels))
    assert picture.shape == (64, 8 * 26, 3)
    grey = (picture == picture[..., :1]).all(-1)
    assert grey.mean() > 0.9
    assert len(np.unique(picture[~grey], axis=0)) == 2


def test_pictures_hang_the_planes_upright() -> None:
    spec = {"mean": [0.0], "std": [1.0]}
    data = torch.zeros(1, 1, 6, 4, 8)
    data[0, 0, 0, :, 7] = 1.0  # right-most x = 0, most superior
    data[0, 0, 5, 2, 0] = float("nan")
    (picture,) = MEDICAL.draw(data, spec)
    assert picture.shape == (8, 6 + 1 + 6 + 1 + 4, 3)
    assert (picture[0, 7] == 255).all(), "top left of the coronal plane"
    assert not (picture[7, 12] == picture[7, 12, 0]).all(), "hidden voxels have a colour"
    assert MEDICAL.draw([data], spec) == []
    assert MEDICAL.draw(torch.zeros(2, 1, 5, 7), spec)[0].shape == (7, 5, 3)


def test_a_recipe_of_one_view_has_no_contrast_between_views() -> None:
    """Recipes stand on the default, whose method has the same name and a contrast."""
    recipe = ssl_medical.build_recipe("relative_position").model_dump()
    assert recipe["views"]["views"] == 1
    assert recipe["method"]["contrast"] == 0
