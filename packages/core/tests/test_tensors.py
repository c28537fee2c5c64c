"""Tensor files: the same bytes for the same content, tied weights stored once."""

import torch
from safetensors.torch import load_file

from ssl_core.tensors import read_tensors, write_tensors


def test_equal_content_gives_equal_bytes(tmp_path):
    tensors = {f"layer.{i}": torch.arange(i + 1.0) for i in range(5)}
    facts = {name: [name] for name in "zyxwvutsrq"} | {"quoted": 'a "b" ü \\'}
    written = []
    for i in range(6):
        write_tensors(tmp_path / f"{i}.safetensors", tensors, facts)
        written.append((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(set(written)) == 1
    loaded = load_file(tmp_path / "0.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_tied_weights_are_stored_once_and_come_back_under_both_names(tmp_path):
    weight = torch.randn(300, 4)
    tensors = {"embed": weight, "head": weight, "other": weight.T, "copy": weight.clone()}
    path = tmp_path / "tied.safetensors"
    write_tensors(path, tensors)
    assert path.stat().st_size < 3.3 * weight.nbytes
    loaded = read_tensors(path)
    assert set(loaded) == set(tensors)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
