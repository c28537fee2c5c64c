"""Tokenizer and reader: deterministic, complete, readable again."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_core.batch import Record
from ssl_core.data import ArraySource
from ssl_core.data.tokenizer import SPECIALS, load_tokenizer, train_tokenizer
from ssl_core.errors import CorruptSample, UserError
from ssl_text.options import TextOptions
from ssl_text.reader import TextReader
from ssl_text.sources.passage import Passage
from ssl_text.tokens import TokenBatch

CORPUS = [
    f"Number {i} is {'even' if i % 2 == 0 else 'odd'}; its square, {i * i}, is too. Ünï, 数字."
    for i in range(300)
]


@pytest.fixture(scope="module")
def reader() -> TextReader:
    return TextReader(train_tokenizer(CORPUS, vocab_size=400), max_length=32)


def test_training_is_deterministic_in_other_processes(reader):
    here = hashlib.sha256(reader.tokenizer.to_str().encode()).hexdigest()
    code = (
        "import hashlib, sys; from ssl_core.data.tokenizer import train_tokenizer as train;"
        "corpus = sys.stdin.read().split(chr(0));"
        "text = train(corpus, vocab_size=400).to_str();"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    for parallel, seed in (("false", "1"), ("true", "2")):
        environment = {"TOKENIZERS_PARALLELISM": parallel, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            input="\0".join(CORPUS),
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here
        assert done.stderr == ""


def test_specials_come_first_and_every_byte_is_known(reader):
    assert [reader.tokenizer.token_to_id(name) for name in SPECIALS] == [0, 1, 2, 3, 4]
    spec = reader.spec
    assert (spec["pad_id"], spec["cls_id"], spec["sep_id"], spec["mask_id"]) == (0, 1, 2, 3)
    assert spec["special_ids"] == [0, 1, 2, 3, 4]
    assert spec["vocab_size"] == 400
    unseen = bytes(range(1, 256)).decode("latin-1").lower()
    wide = TextReader(reader.tokenizer, max_length=2000)
    assert wide.text(wide.encode(unseen)) == unseen
    assert 4 not in wide.encode(unseen)


def test_decode_is_cls_text_sep_and_cut(reader):
    short = reader.decode(Record("a", "number 7"))
    assert short.dtype == torch.int32
    assert (short[0], short[-1]) == (1, 2)
    assert reader.text(short) == "number 7"
    assert torch.equal(reader.decode(Record("a", "NUMBER 7")), short)
    long = reader.decode(Record("a", " ".join(CORPUS)))
    assert len(long) == 32
    assert (long[0], long[-1]) == (1, 2)
    assert " ".join(CORPUS).lower().startswith(reader.text(long))


def test_special_names_in_text_stay_what_the_tokenizer_makes_of_them(reader):
    ids = reader.encode("a [MASK] b")
    assert reader.spec["mask_id"] in ids  # a document may spell a piece; maskers leave it alone


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"number 5", "number 5"),
        (Passage(b'{"text": "number 5"}', "x", "text"), "number 5"),
    ],
)
def test_payloads(reader, tmp_path, payload, text):
    assert reader.text(reader.decode(Record("a", payload))) == text
    path = tmp_path / "a.txt"
    path.write_text(text)
    assert torch.equal(reader.decode(Record("a", path)), reader.decode(Record("a", payload)))
    with pytest.raises(CorruptSample, match="expected text, got int"):
        reader.decode(Record("a", 5))
    with pytest.raises(CorruptSample, match="empty document"):
        reader.decode(Record("a", "  \n"))


def test_batches_are_padded_and_marked(reader):
    samples = [reader.encode(text) for text in ("number 5", "number 6 is even", "x")]
    batch = reader.collate(samples)
    assert batch.lengths.tolist() == [len(sample) for sample in samples]
    for row, sample in enumerate(samples):
        assert torch.equal(batch.ids[row, : len(sample)], sample.long())
        assert (batch.ids[row, len(sample) :] == reader.spec["pad_id"]).all()
    both = TokenBatch.cat([batch[:1], batch[1:]])
    assert torch.equal(both.ids, batch.ids)
    assert torch.equal(both.valid, batch.valid)
    apart = TokenBatch.cat([reader.collate(samples[:1]), reader.collate(samples[1:])])
    assert torch.equal(apart.ids, batch.ids)
    assert torch.equal(apart.valid, batch.valid)
    assert batch.to("cpu").ids.dtype == torch.int64


def test_raw_counts_tokens(reader):
    samples = [reader.encode("number number 5"), reader.encode("x")]
    raw = reader.raw(reader.collate(samples))
    assert raw.shape == (2, 400)
    torch.testing.assert_close(raw.norm(dim=1), torch.ones(2))
    for row, sample in zip(raw, samples, strict=True):
        counts = torch.bincount(sample[1:-1].long(), minlength=400).float()
        torch.testing.assert_close(row, counts / counts.norm())


def test_save_and_load(reader, tmp_path):
    reader.save(tmp_path)
    for again in (TextReader.load(tmp_path), pickle.loads(pickle.dumps(reader))):
        assert again.spec == reader.spec
        assert again.tokenizer.to_str() == reader.tokenizer.to_str()
        for text in CORPUS[:20]:
            assert torch.equal(again.encode(text), reader.encode(text))


def test_fit_skips_what_cannot_be_read_and_takes_a_tokenizer_file(reader, tmp_path):
    source = ArraySource([*CORPUS, " "])
    fitted = TextReader.fit(source, TextOptions(vocab_size=400, max_length=32))
    assert fitted.tokenizer.to_str() == reader.tokenizer.to_str()
    reader.save(tmp_path)
    file = str(tmp_path / "tokenizer.json")
    taken = TextReader.fit(source, TextOptions(tokenizer=file, max_length=16))
    assert taken.spec == {**reader.spec, "max_length": 16}
    with pytest.raises(UserError, match="no document can be read"):
        TextReader.fit(ArraySource([" "]), TextOptions())


def test_bad_tokenizer_files_are_the_users_error(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match=r"bad\.json"):
        load_tokenizer(tmp_path / "bad.json")
    bare = train_tokenizer(CORPUS, vocab_size=300)
    text = bare.to_str().replace("[MASK]", "[HIDE]")
    (tmp_path / "maskless.json").write_text(text)
    with pytest.raises(UserError, match="no mask piece"):
        TextReader(load_tokenizer(Path(tmp_path / "maskless.json")), max_length=8)


def test_documents_that_all_cannot_be_read_say_why_before_training(tmp_path):
    source = ArraySource([b"caf\xe9", b"num\xe9ro"], keys=["a.txt:1", "a.txt:2"])
    with pytest.raises(UserError, match=r"a.txt:1: invalid UTF-8 at byte 3 \(0xe9\).*LATIN1"):
        TextReader.fit(source, TextOptions())
