"""Segmentation: the same voxels for scan and labels, known scores, a run from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import ssl_medical
from ssl_core.batch import Batch
from ssl_core.data import Subset
from ssl_core.errors import CorruptSample, UserError
from ssl_core.recipe import Data
from ssl_core.report import render
from ssl_core.rng import Rng
from ssl_core.runs.folder import Run
from ssl_medical.__main__ import main
from ssl_medical.blocks import Blocks
from ssl_medical.domain import MEDICAL
from ssl_medical.encoders.create import create_encoder
from ssl_medical.prepare import SCALE
from ssl_medical.reader import ReaderOptions, VolumeReader
from ssl_medical.segmentation import start
from ssl_medical.segmentation.few_labels import few_label_dice
from ssl_medical.segmentation.labelled import (
    LabelledReader,
    classes_of,
    labelled_views,
    with_masks,
)
from ssl_medical.segmentation.network import Segmenter, predict, scores

TINY = {
    "views.size": 16, "encoder.widths": [4, 8], "method.hidden": 16, "method.dim": 8,
    "data.workers": 0, "evaluation.more.few_label_dice.seeds": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantoms") / "scans"
    ssl_medical.write_samples(path, count=16)
    return path


@pytest.fixture(scope="module")
def labelled(folder):
    source = with_masks(MEDICAL.open(Data(path=str(folder))))
    return source, LabelledReader(VolumeReader.fit(source, ReaderOptions(crop=False)))


def test_labels_lie_on_the_voxels_they_name(labelled) -> None:
    source, reader = labelled
    for row in (0, 3, 5):
        scan, labels = reader.pair(source[row])
        assert scan.shape == labels.shape == (1, 32, 32, 32)
        assert set(np.unique(labels)) <= set(range(7))
        air, body = scan[labels == 0] / SCALE, scan[labels > 0] / SCALE
        assert air.mean() < 0.15 < body.mean(), "outside the body is dark"
    assert classes_of(source, reader) == 7


def test_views_place_scan_and_labels_alike() -> None:
    """Labels that equal the intensities must still do so in a view without intensity changes."""
    spec = {"channels": 1, "axes": 3, "block": [16, 16, 16], "spacing": [1.0, 1.0, 1.0],
            "mean": [0.0], "std": [1.0]}  # fmt: skip
    steps = torch.arange(16) // 4
    data = (steps[:, None, None] + steps[None, :, None] + steps[None, None, :]).expand(
        2, 1, -1, -1, -1
    )
    both = torch.cat([data * 1000, data], dim=1).to(torch.int16)
    zeros = torch.zeros(2, 3, dtype=torch.int64)
    batch = Batch(Blocks(both, zeros, zeros + 16), torch.arange(2), torch.arange(2))
    views = labelled_views(spec, [8, 8, 8])
    from dataclasses import replace

    from ssl_medical.views.intensity import NEUTRAL

    (view,) = replace(views, intensity=NEUTRAL)(batch, Rng.at(0, 0, batch.ids))
    seen = view.data[:, 0] * SCALE / 1000
    close = (seen - view.params["labels"]).abs() < 0.51
    assert close.float().mean() > 0.9
    assert view.params["labels"].max() > 4


def test_scores_of_known_predictions(labelled, monkeypatch) -> None:
    source, reader = labelled
    encoder = create_encoder("resnet_nano", reader.spec, widths=(4, 8))
    views = labelled_views(reader.spec, [16, 16, 16])
    method = Segmenter(encoder, views, classes=7)

    def told(answer):
        monkeypatch.setattr("ssl_medical.segmentation.network.predict", answer)
        return scores(method, source, reader, views, torch.device("cpu"))

    truth = [torch.from_numpy(reader.pair(source[i])[1][0]).long() for i in range(len(source))]
    turn = iter(truth)
    perfect = told(lambda *_: next(turn))
    assert perfect["dice"] == 1
    assert perfect["hd95"] == 0
    turn = iter([x.roll(1, 0) for x in truth])
    shifted = told(lambda *_: next(turn))
    assert 0.4 < shifted["dice"] < 0.97
    assert shifted["hd95_classes"][0] == pytest.approx(3.0, abs=0.5), "one voxel of 3 mm"
    empty = told(lambda *_: torch.zeros(32, 32, 32, dtype=torch.int64))
    assert empty["dice"] == 0
    assert empty["hd95"] is None


def test_scans_that_cannot_be_read_are_counted_not_scored(labelled, monkeypatch) -> None:
    source, reader = labelled
    views = labelled_views(reader.spec, [16, 16, 16])
    method = Segmenter(create_encoder("resnet_nano", reader.spec, widths=(4, 8)), views, classes=7)
    pair = reader.pair

    def damaged(record):
        if record.key != source[1].key:
            raise CorruptSample("damaged")
        return pair(record)

    monkeypatch.setattr(reader, "pair", damaged)
    assert classes_of(source, reader) == 7
    some = Subset(source, [0, 1, 2])
    found = scores(method, some, reader, views, torch.device("cpu"), distance=False)
    assert (found["scans"], found["unreadable"]) == (1, 2)
    with pytest.raises(UserError, match="damaged"):
        scores(method, Subset(source, [0]), reader, views, torch.device("cpu"))


def test_windows_cover_scans_of_any_size(labelled) -> None:
    _, reader = labelled
    views = labelled_views(reader.spec, [16, 16, 16])
    method = Segmenter(create_encoder("unet_nano", reader.spec, widths=(4, 8)), views, classes=3)
    scan = np.zeros((1, 20, 33, 9), np.int16)
    assert predict(method.eval(), scan, views, torch.device("cpu")).shape == (20, 33, 9)
    views = labelled_views(reader.spec | {"axes": 2}, [16, 16])
    spec = {"channels": 1, "axes": 2}
    method = Segmenter(create_encoder("resnet_nano", spec, widths=(4, 8)), views, classes=3)
    assert predict(method.eval(), scan, views, torch.device("cpu")).shape == (20, 33, 9)


def test_the_head_starts_where_it_fits_and_nothing_else_moves(labelled) -> None:
    source, reader = labelled
    torch.manual_seed(0)
    encoder = create_encoder("unet_nano", reader.spec, widths=(4, 8))
    method = Segmenter(encoder, labelled_views(reader.spec, [16, 16, 16]), classes=7)
    ids = torch.arange(2)
    batch = Batch(reader.collate([reader.decode(source[i]) for i in (0, 1)]), ids, ids)
    (view,) = method.views(batch, Rng.at(1, 0, ids))

    def right() -> float:
        with torch.no_grad():
            told = method.eval().out(method.dense(view)).argmax(1)
        return float((told == view.params["labels"]).float().mean())

    before, share = encoder.state_dict(), right()
    kept = {name: value.clone() for name, value in before.items()}
    state = torch.get_rng_state()
    start.start_head(method, Subset(source, [0, 1]), reader, torch.device("cpu"), seed=0)
    assert right() > max(0.5, share + 0.2)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, kept[name]) for name, value in encoder.state_dict().items())


def test_a_run_is_finetuned_for_segmentation(folder, tmp_path) -> None:
    run = ssl_medical.pretrain(
        data=str(folder), method="simclr", out=str(tmp_path / "run"), steps=2, batch_size=8,
        settings=TINY, progress=False,
    )  # fmt: skip
    found = ssl_medical.finetune(
        run, task="segmentation", steps=40, batch_size=4, lr=1e-2, labelled=4, progress=False
    )
    assert found["labelled"] == 4
    assert found["dice_classes"][0] > 0.5, "the body is easy"
    assert found["scans"] == 4
    out = Path(found["out"])
    assert (out / "head.safetensors").is_file()
    assert json.loads((out / "summary.json").read_text())["dice"] == pytest.approx(found["dice"])
    shown = Run(out).pictures()
    assert [caption for caption, _ in shown] == ["scan", "labels", "told by the network"]
    page = render(run)
    assert 'id="tuned"' in page
    assert "told by the network" in page
    with pytest.raises(UserError, match="did you mean 'segmentation'"):
        ssl_medical.finetune(run, task="segmentaton")


def test_segmentations_that_cannot_be_read_are_named_and_counted(folder, tmp_path) -> None:
    run = ssl_medical.pretrain(
        data=str(folder), method="simclr", out=str(tmp_path / "run"), steps=1, batch_size=8,
        settings=TINY, progress=False,
    )  # fmt: skip
    rows = (folder / "volumes.csv").read_text().splitlines()
    rows[1] = rows[1].replace("masks/", "lost/")
    rows[-1] = rows[-1].replace("masks/", "lost/")
    (folder / "lost.csv").write_text("\n".join(rows))
    asked = ["finetune", str(run.path), "--task", "segmentation", "--steps", "4"]
    given = ["--batch-size", "8", "--data", str(folder / "lost.csv"), "--out", str(tmp_path / "t")]
    said = CliRunner().invoke(main.commands, [*asked, *given])
    assert said.exit_code == 0, said.output
    assert "records that could not be read: 1; reasons are in" in said.output
    assert "held-out records that could not be read or scored: 1" in said.output
    lost = json.loads((tmp_path / "t" / "corrupt.jsonl").read_text())
    assert lost["reason"].startswith("segmentation lost/00000.nii.gz: does not exist")


def test_few_labels_are_compared_with_scratch(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(start, "_STEPS", 3)
    options = {"volumes": 2, "seeds": 1, "steps": 2, "batch_size": 2, "tested": 2}
    more = {f"evaluation.more.few_label_dice.{name}": value for name, value in options.items()}
    run = ssl_medical.pretrain(
        data=str(folder), method="simclr", out=str(tmp_path / "run"), steps=2, batch_size=8,
        settings=TINY | more, progress=False,
    )  # fmt: skip
    found = run.summary["more"]["few_label_dice"]
    assert len(found["each"]["scratch"]) == 1
    assert "labelled scans" in run.summary["verdict"].partition("k-NN")[0]
    assert found["score"]["rivals"] == {"from scratch": found["scratch"]}
    assert found["score"]["trained"] == found["pretrained"]
    several = ssl_medical.evaluate(
        run, more={"few_label_dice": {**options, "volumes": [1, 2], "steps": 1}}
    )["more"]["few_label_dice"]
    assert [row["volumes"] for row in several["rows"]] == [1, 2]
    assert [row[0] for row in several["table"][1]] == ["1", "2"]
    with pytest.raises(UserError, match="volumes"):
        few_label_dice(run, MEDICAL, torch.device("cpu"), volumes=[])
    bare = ssl_medical.pretrain(
        data=str(folder / "scans"), method="simclr", out=str(tmp_path / "bare"), steps=2,
        batch_size=8, settings=TINY | more, progress=False,
    )  # fmt: skip
    assert "Dice was not measured" in bare.summary["verdict"]


def test_an_unknown_option_of_a_measure_is_refused_before_training(folder, tmp_path) -> None:
    with pytest.raises(UserError, match=r"evaluation\.more few_label_dice option"):
        ssl_medical.pretrain(
            data=str(folder), out=str(tmp_path / "run"), steps=2, progress=False,
            settings=TINY | {"evaluation.more.few_label_dice.volume": 3},
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
