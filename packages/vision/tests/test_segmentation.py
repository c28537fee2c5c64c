"""Masks and their folders, views of both, the loss, mean IoU, and runs fine-tuned on scenes."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models.segmentation.fcn import FCNHead

import ssl_vision
from ssl_core.batch import Batch, Record
from ssl_core.data import decode_all
from ssl_core.encoder import Features
from ssl_core.errors import CorruptSample, UserError
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_vision.domain import VISION
from ssl_vision.reader import ImageReader, ReaderOptions
from ssl_vision.segmentation.network import PairViews, Segmenter, dense_head, measures
from ssl_vision.segmentation.pairs import Labels, PairReader, paired_source, read_mask
from ssl_vision.segmentation.scenes import write_scenes

LIMIT = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "scenes"
    write_scenes(path, count=40, seed=0)
    return path


@pytest.fixture(scope="module")
def reader(folder):
    source = paired_source(VISION, Data(path=str(folder)))
    return PairReader(ImageReader.fit(source), Labels.of(source, max_pixels=LIMIT))


def test_masks_are_found_beside_images(folder, tmp_path) -> None:
    source = paired_source(VISION, Data(path=str(folder)))
    assert len(source) == 40
    assert source[3].meta["mask"] == "masks/00003.png"
    nested = tmp_path / "nested"
    for name in ("train/JPEGImages/a.jpg", "val/JPEGImages/b.jpg", "val/JPEGImages/alone.jpg"):
        (nested / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(nested / name)
    for name in ("train/SegmentationClass/a.png", "val/SegmentationClass/b.png"):
        (nested / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 6), 1).save(nested / name)
    found = paired_source(VISION, Data(path=str(nested)))
    assert [found[i].meta["split"] for i in range(2)] == ["train", "val"]
    (tmp_path / "list.csv").write_text("path,mask\nnested/train/JPEGImages/a.jpg,m.png\n")
    assert len(paired_source(VISION, Data(path=str(tmp_path / "list.csv")))) == 1
    with pytest.raises(UserError, match="no image has a mask"):
        paired_source(VISION, Data(path=str(folder / "images")))


def test_masks_keep_their_numbers(tmp_path) -> None:
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(numbers).convert("L")
    palette = Image.fromarray(numbers, mode=None)
    indexed = Image.new("P", (4, 3))
    indexed.putpalette([7, 90, 200] * 256)
    indexed.putdata(numbers.flatten().tolist())
    for name, image in (("grey.png", palette), ("palette.png", indexed), ("palette.gif", indexed)):
        image.save(tmp_path / name)
        assert np.array_equal(read_mask(tmp_path / name, max_pixels=LIMIT), numbers)
    np.save(tmp_path / "m.npy", numbers.astype(np.int64))
    assert np.array_equal(read_mask(tmp_path / "m.npy", max_pixels=LIMIT), numbers)
    Image.fromarray(numbers.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    for name, reason in (("deep.png", "no class numbers"), ("rgb.png", "not colours")):
        if name == "rgb.png":
            Image.new("RGB", (4, 3)).save(tmp_path / name)
        with pytest.raises(CorruptSample, match=reason):
            read_mask(tmp_path / name, max_pixels=LIMIT)
    with pytest.raises(CorruptSample, match="exceeds the cap"):
        read_mask(tmp_path / "grey.png", max_pixels=4)


def test_black_and_white_masks_are_two_classes(tmp_path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    mask = Image.new("L", (8, 8))
    mask.paste(255, (2, 2, 4, 4))
    mask.save(tmp_path / "masks" / "a.png")
    labels = Labels.of(paired_source(VISION, Data(path=str(tmp_path))), max_pixels=LIMIT)
    assert (labels.count, int(labels.table[255])) == (2, 1)


def test_numbers_nobody_saw_are_not_labelled(reader) -> None:
    assert reader.labels.count == 11
    assert reader.labels.table[10] == 10
    assert reader.labels.table[11] == reader.labels.table[255] == 255


def test_a_shrunk_image_shrinks_its_mask_and_other_shapes_are_refused(folder, tmp_path) -> None:
    source = paired_source(VISION, Data(path=str(folder)))
    small = ImageReader.fit(source, ReaderOptions(max_side=20))
    labels = Labels.of(source, max_pixels=LIMIT)
    both = PairReader(small, labels).decode(source[0])
    assert both.shape == (4, 20, 20)
    whole = read_mask(folder / "masks" / "00000.png", max_pixels=LIMIT)
    assert torch.equal(both[3], whole[1::2, 1::2])
    Image.new("L", (40, 30)).save(tmp_path / "m.png")
    record = Record(source[0].key, source[0].payload, None, {"mask": str(tmp_path / "m.png")})
    with pytest.raises(CorruptSample, match="not the image's shape"):
        PairReader(small, labels).decode(record)


def test_image_and_mask_are_cropped_alike(reader) -> None:
    rows = torch.arange(64, dtype=torch.uint8)
    image = (rows[:, None] // 8 * 8 + rows[None] // 8).expand(3, 64, 64)
    ids = torch.arange(6)
    both = torch.cat([image, image[:1]])[None].repeat(6, 1, 1, 1)
    spec = {**reader.spec, "mean": [0.0] * 3, "std": [1.0] * 3}
    (view,) = PairViews(spec, 64)(Batch(both, ids, ids), Rng.at(0, 0, ids))
    shown = (view.data[:, 0] * 255).round().long()
    # Where bilinear neighbours agree, the mask's nearest pixel is the image's.
    agree = (shown == view.params["mask"]).float().mean()
    assert agree > 0.7
    (alone,) = PairViews(spec, 64)(
        Batch(list(both[2:3]), ids[2:3], ids[2:3]), Rng.at(0, 0, ids[2:3])
    )
    assert torch.equal(alone.data[0], view.data[2])
    assert torch.equal(alone.params["mask"][0], view.params["mask"][2])


class Grid(torch.nn.Module):
    """Pixels averaged over 4 x 4 cells, as tokens."""

    embed_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, data):
        cells = torch.nn.functional.avg_pool2d(data * self.scale, 4)
        return Features(cells.mean((2, 3)), cells.flatten(2).mT, tuple(cells.shape[2:]))


def test_the_loss_counts_labelled_pixels_only(reader) -> None:
    method = Segmenter(Grid(), PairViews(reader.spec, 8), classes=11, head="linear")
    mask = torch.full((2, 8, 8), 255)
    mask[0, :2] = 4
    mask[1] = 0
    scores = torch.zeros(2, 11, 2, 2, requires_grad=True)
    loss = method.loss((scores, mask))
    assert loss.total.item() == pytest.approx(np.log(11))
    loss.total.backward()
    assert scores.grad[0, :, 1].abs().max() < 1e-3  # rows 4 to 8 hardly reach rows 0 and 1
    empty = method.loss((torch.zeros(1, 11, 2, 2), torch.full((1, 8, 8), 255)))
    assert empty.total == 0


def test_a_frozen_encoder_stands_still(reader) -> None:
    method = Segmenter(Grid(), PairViews(reader.spec, 8), classes=11, frozen=True).train()
    assert not method.encoder.training
    assert not method.encoder.scale.requires_grad
    method.freeze(False)
    assert method.encoder.training
    assert method.encoder.scale.requires_grad


def test_the_light_head_is_torchvisions_without_dropout() -> None:
    ours, theirs = dense_head(64, 5, "fcn").eval(), FCNHead(64, 5).eval()
    values = iter(theirs.state_dict().values())
    ours.load_state_dict({name: next(values) for name in ours.state_dict()})
    x = torch.randn(2, 64, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_mean_iou_in_numbers() -> None:
    table = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    found = measures(table)
    assert found["mIoU"] == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert found["pixel_accuracy"] == pytest.approx(9 / 12)


def test_runs_are_segmented_by_every_layer_and_by_a_linear_one(folder, tmp_path) -> None:
    run = ssl_vision.pretrain(
        data=folder / "images",
        out=tmp_path / "run",
        settings={"train.steps": 2, "train.batch_size": 16, "data.workers": 0},
    )
    found = ssl_vision.finetune(
        run, folder, task="segmentation", steps=12, batch_size=8, lr=5e-3, out=tmp_path / "t"
    )
    assert found["scores"]["finetuned"]["pixel_accuracy"] > 0.6
    assert 0 < found["scores"]["finetuned"]["mIoU"] < 1
    head = load_file(tmp_path / "t" / "head.safetensors")
    assert head["3.weight"].shape[0] == 11
    more = {"segmentation": {"steps": 4, "batch_size": 8}}
    linear = ssl_vision.evaluate(run, folder, probe=False, more=more)["more"]["segmentation"]
    assert linear["classes"] == 11
    again = ssl_vision.evaluate(run, folder, probe=False, more=more)["more"]["segmentation"]
    assert again["mIoU"] == linear["mIoU"]
    with pytest.raises(UserError, match="targets of its own"):
        ssl_vision.finetune(run, folder, task="segmentation", targets=["x"])


def test_unreadable_masks_are_left_out_and_named(folder, reader, tmp_path) -> None:
    source = paired_source(VISION, Data(path=str(folder)))
    broken = tmp_path / "broken.png"
    broken.write_bytes((folder / "masks" / "00000.png").read_bytes()[:60])

    class Broken:
        classes = None

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Record:
            record = source[index]
            return (
                record if index else Record(record.key, record.payload, None, {"mask": str(broken)})
            )

        def fingerprint(self) -> str:
            return "broken"

    failures = []
    batches = list(decode_all(Broken(), reader, on_corrupt=failures.append))
    assert [len(batch) for batch in batches] == [1]
    assert "mask cannot be read" in failures[0].reason
