"""The MONAI bundle: its vectors are those of `embed`, through MONAI's own program."""

import json

import monai.bundle
import numpy as np
import pytest
import torch

import ssl_medical
from ssl_core.recipe import Data
from ssl_core.tensors import read_tensors
from ssl_medical.domain import MEDICAL

TINY = {
    "views.size": 16, "encoder.widths": [4, 8], "method.hidden": 16, "method.dim": 8,
    "data.workers": 0, "evaluation.more.few_label_dice.seeds": 0,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI's, of any bundle
def test_monai_runs_the_bundle_and_gets_the_same_vectors(tmp_path) -> None:
    scans = tmp_path / "scans"
    ssl_medical.write_samples(scans, count=16)
    run = ssl_medical.pretrain(
        data=str(scans), method="simclr", out=str(tmp_path / "run"), steps=2, batch_size=8,
        settings=TINY, progress=False,
    )  # fmt: skip
    folder = ssl_medical.export(run.path, tmp_path / "bundle", format="monai")
    source = MEDICAL.open(Data(path=str(scans)))
    names = [str(source[row].payload) for row in range(5)]
    out = tmp_path / "vectors.npy"
    monai.bundle.run(
        config_file=str(folder / "configs" / "inference.json"), bundle_root=str(folder),
        scans=names, out=str(out),
    )  # fmt: skip
    want = ssl_medical.load(run.path).embed(names)
    np.testing.assert_allclose(np.load(out), want, rtol=1e-5, atol=1e-6)
    stored = read_tensors(folder / "models" / "model.safetensors")
    plain = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(stored[name], x) for name, x in plain.items())
    facts = json.loads((folder / "configs" / "metadata.json").read_text())
    assert facts["network_data_format"]["inputs"]["image"]["spatial_shape"] == [16, 16, 16]
    assert facts["monai_version"] == monai.__version__.split("+")[0]
    everything = "".join(p.read_text() for p in (folder / "configs").iterdir())
    assert str(tmp_path) not in everything, "no path of this machine travels"
