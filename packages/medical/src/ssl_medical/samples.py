"""A small labelled set of real scan files: phantoms of a trunk with organs and one lesion.

Every patient has a body of random proportions with liver, spleen, two kidneys and spine, seen on
one or two scans. One lesion of a size, brightness and place of its own tells the class by its
*structure*: solid, hollow, lobed or layered. Half the scans are CT in Hounsfield units, before or
after a contrast agent, half MR on arbitrary scales, of one sequence or another: which organ is
brighter than which differs between scans, as do texture, bias field and noise. An organ is known
by where it lies and by its shape; a few labelled scans do not show what it looks like on others.
`volumes.csv` lists scans with class, patient, modality and segmentation; files are NIfTI, a few CT
as DICOM series.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator
from ssl_medical.sources import TABLE

SIDES = (32, 32, 32)
SPACING = (3.0, 3.0, 3.0)
TEST_SHARE = 0.3
DEFAULT_COUNT = 640
LESIONS = ("solid", "hollow", "lobed", "layered")
ORGANS = ("background", "body", "liver", "spleen", "kidneys", "spine", "lesion")
"""Names of the segmentation's values."""
_HOUNSFIELD = ((-965, -935), (-80, 40), (40, 140), (40, 160), (40, 240), (220, 450))
"""Air, body and organs, from before a contrast agent to its strongest phase."""
_DICOM_EVERY = 40


@dataclass(frozen=True)
class Phantom:
    """One scan: intensities `[X, Y, Z]`, organ numbers `[X, Y, Z]` and what it shows."""

    data: np.ndarray
    organs: np.ndarray
    lesion: str
    modality: str


def write_samples(folder: Path, *, count: int = DEFAULT_COUNT, seed: int = 0) -> None:
    """Writes `count` scans and their segmentations; patients of the test part are in no other.

    `folder` must be empty or new. Raises `UserError` for a count below 16 or a folder with content.
    """
    folder = Path(folder)
    if count < 16:
        raise UserError(f"count: {count} is too few; write at least 16 scans")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"folder: {folder} is not empty; name a new one")
    for name in ("scans", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    tests = round(count * TEST_SHARE)
    with (folder / TABLE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "patient", "modality", "mask", "split"])
        for number in range(count):
            patient = number // 2
            phantom = draw(seed, patient, number)
            split = "test" if number >= count - tests // 2 * 2 else "train"
            name, mask = _write(folder, number, phantom)
            table.writerow([name, phantom.lesion, f"p{patient:04d}", phantom.modality, mask, split])


def draw(seed: int, patient: int, number: int) -> Phantom:
    """One scan of a patient; the body is the patient's, lesion and appearance the scan's."""
    organs, centre = _body(generator("phantom body", seed, patient))
    random = generator("phantom scan", seed, number)
    lesion = LESIONS[number % len(LESIONS)]
    inside, pattern = _lesion(lesion, centre, random)
    organs = np.where(inside & (organs > 0), 6, organs)
    modality = "CT" if random.uniform() < 0.5 else "MR"
    return Phantom(_appearance(organs, pattern, modality, random), organs, lesion, modality)


def _grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates of voxel centres, -1 to 1 along each axis."""
    x, y, z = np.mgrid[: SIDES[0], : SIDES[1], : SIDES[2]] + 0.5
    return tuple(2 * a / s - 1 for a, s in zip((x, y, z), SIDES, strict=True))  # type: ignore[return-value]


def _ellipsoid(centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return sum(((a - c) / r) ** 2 for a, c, r in zip(_grid(), centre, radii, strict=True)) < 1  # type: ignore[no-any-return]


def _body(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Organ numbers, and where in the liver or body a lesion may sit."""

    def some(values: tuple[float, float, float], spread: float) -> np.ndarray:
        return np.array(values) + random.uniform(-spread, spread, 3)

    organs = np.zeros(SIDES, np.int16)
    organs[_ellipsoid(some((0, 0, 0), 0.03), some((0.9, 0.75, 1.3), 0.08))] = 1
    liver = some((0.38, 0.1, 0.15), 0.06)
    for number, centre, radii in (
        (2, liver, some((0.42, 0.45, 0.5), 0.06)),
        (3, some((-0.52, -0.1, 0.3), 0.06), some((0.2, 0.27, 0.32), 0.04)),
        (4, some((0.3, -0.42, -0.45), 0.05), some((0.15, 0.15, 0.28), 0.03)),
        (4, some((-0.3, -0.42, -0.4), 0.05), some((0.15, 0.15, 0.28), 0.03)),
        (5, some((0, -0.55, 0), 0.02), np.array([0.13, 0.13, 2.0])),
    ):
        organs[_ellipsoid(centre, radii) & (organs > 0)] = number
    return organs, liver


def _lesion(
    kind: str, liver: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where the lesion is, and its pattern in -1..1 (0 outside)."""
    centre = liver * random.uniform(-0.6, 0.6) + random.uniform(-0.2, 0.2, 3)
    radius = random.uniform(0.42, 0.56)
    away = np.stack([a - c for a, c in zip(_grid(), centre, strict=True)])
    distance = np.sqrt((away**2).sum(0)) / radius
    inside, pattern = distance < 1, np.ones(SIDES)
    if kind == "hollow":
        pattern = np.where(distance < 0.62, -1.0, 1.0)
    elif kind == "layered":
        normal = random.normal(size=3)
        depth = np.tensordot(normal / np.linalg.norm(normal), away, 1) / radius
        pattern = np.sign(np.sin(depth * np.pi * 2.2 + random.uniform(0, 6.28)))
    elif kind == "lobed":
        lobes = random.normal(size=(3, 3))
        lobes *= 0.62 * radius / np.linalg.norm(lobes, axis=1, keepdims=True)
        gaps = [np.sqrt(((away - lobe[:, None, None, None]) ** 2).sum(0)) for lobe in lobes]
        inside = np.min(gaps, axis=0) < 0.42 * radius
    return inside, np.where(inside, pattern, 0.0)


def _appearance(
    organs: np.ndarray, pattern: np.ndarray, modality: str, random: np.random.Generator
) -> np.ndarray:
    """Intensities of organs and lesion with texture, bias field and noise; float32."""
    if modality == "CT":
        levels, unit = random.uniform(*np.transpose(_HOUNSFIELD)), 1.0
        strength, spread = random.uniform(160, 280), random.uniform(6, 14)
    else:
        unit = random.uniform(0.5, 4.0)
        levels = np.array([20.0, *random.uniform(200, 900, 5)])
        strength, spread = random.uniform(300, 500), random.uniform(15, 40)
    sign = 1 if random.uniform() < 0.5 else -1
    body = np.where(organs == 6, 2, organs)
    data = levels[body] + sign * strength * pattern
    data = data + spread * _smooth(random, 6) * (organs > 0)
    if modality == "MR":
        data = data * np.exp(0.35 * _smooth(random, 2))
    return ((data + random.normal(scale=spread, size=SIDES)) * unit).astype(np.float32)


def _smooth(random: np.random.Generator, cells: int) -> np.ndarray:
    """Noise of deviation about 1 that changes over a few voxels."""
    from ssl_medical.prepare import to_spacing

    small = random.normal(size=(1, cells, cells, cells)).astype(np.float32)
    steps = np.diag([*(s / cells for s in SIDES), 1.0])
    return to_spacing(small, steps, (1.0, 1.0, 1.0))[0][0]


def _write(folder: Path, number: int, phantom: Phantom) -> tuple[str, str]:
    import nibabel

    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = [-0.5 * side * step for side, step in zip(SIDES, SPACING, strict=True)]
    mask = f"masks/{number:05d}.nii.gz"
    _save(folder / mask, nibabel.Nifti1Image(phantom.organs.astype(np.uint8), affine))
    if phantom.modality == "CT" and number % _DICOM_EVERY < 2:
        name = f"scans/{number:05d}"
        write_series(folder / name, phantom.data, affine)
        return name, mask
    name = f"scans/{number:05d}.nii.gz"
    _save(folder / name, nibabel.Nifti1Image(phantom.data.round().astype(np.int16), affine))
    return name, mask


def _save(path: Path, image: Any) -> None:
    """Lightly compressed, without a time: the same scan has the same bytes."""
    path.write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))


def write_series(
    folder: Path, data: np.ndarray, affine: np.ndarray, *, tags: dict[str, str] | None = None
) -> None:
    """Hounsfield units `[X, Y, Z]` as one DICOM file an axial slice; `tags` are set on each."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    step = np.linalg.norm(lps[:3, :3], axis=0)
    series = generate_uid(entropy_srcs=[str(folder)])
    for k in range(data.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(folder), str(k)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.SeriesInstanceUID, slice_.Modality = series, "CT"
        slice_.InstanceNumber = k + 1
        slice_.ImagePositionPatient = [f"{v:.6g}" for v in (lps @ [0, 0, k, 1])[:3]]
        # Rows of the file run along the second axis of the array, columns along the first.
        axes = [*(lps[:3, 0] / step[0]), *(lps[:3, 1] / step[1])]
        slice_.ImageOrientationPatient = [f"{v:.6g}" for v in axes]
        slice_.PixelSpacing = [f"{step[1]:.6g}", f"{step[0]:.6g}"]
        slice_.SliceThickness = f"{step[2]:.6g}"
        slice_.Rows, slice_.Columns = data.shape[1], data.shape[0]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated = slice_.BitsStored = 16
        slice_.HighBit, slice_.PixelRepresentation = 15, 0
        slice_.RescaleSlope, slice_.RescaleIntercept = "1", "-1024"
        for name, value in (tags or {}).items():
            setattr(slice_, name, value)
        stored = (data[:, :, k].T.round() + 1024).clip(0, 65535).astype("<u2")
        slice_.PixelData = stored.tobytes()
        slice_.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)
