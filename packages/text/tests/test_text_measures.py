"""What `evaluate --more` measures of a text run, with its rivals; vectors of tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfTransformer

from ssl_core import api
from ssl_core.errors import UserError
from ssl_core.runs.folder import Run
from ssl_text.domain import TEXT
from ssl_text.evaluation.casehold import multiple_choice, pairs, read_questions, specificity
from ssl_text.evaluation.measures import clustering, read_beir, retrieval, sts
from ssl_text.evaluation.rivals import NAMES, described, tf_idf
from ssl_text.evaluation.tagging import first_tokens, read_tags, tagging
from ssl_text.token_vectors import embed_tokens

CPU = torch.device("cpu")
ANIMALS, TOOLS = ["cat", "dog", "cow", "hen", "pig"], ["saw", "axe", "nut", "bolt", "pin"]


def sentence(words: list[str], seed: int) -> str:
    picked = np.random.default_rng(seed).choice(words, 8)
    return " the ".join(picked)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("text-measures")
    rows = [
        {"text": sentence(ANIMALS if i % 2 else TOOLS, i), "label": ["tool", "animal"][i % 2]}
        for i in range(80)
    ]
    (place / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


@pytest.fixture(scope="module")
def run(folder) -> Run:
    settings = {
        "encoder.depth": 1,
        "encoder.dim": 16,
        "encoder.init": 0.02,  # faint attention: a state tells its own word
        "data.options": {"max_length": 24, "vocab_size": 300},
        "data.workers": 0,
        "evaluation.more": {"tfidf": {}},
    }
    return api.pretrain(
        TEXT,
        "mlm",
        data=folder / "corpus.jsonl",
        steps=4,
        batch_size=16,
        out=folder / "run",
        settings=settings,
        progress=False,
    )


def test_tf_idf_is_scikit_learns():
    counts = torch.randint(0, 3, (12, 9), generator=torch.Generator().manual_seed(0)).double()
    fitted = TfidfTransformer().fit(counts[:8].numpy())
    ours = tf_idf(torch.nn.functional.normalize(counts[:8], dim=1), counts[8:])
    theirs = (fitted.transform(counts[:8].numpy()), fitted.transform(counts[8:].numpy()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, torch.from_numpy(other.toarray()))


def test_the_report_states_tf_idf_beside_the_bag_of_tokens(run):
    summary = json.loads((run.path / "summary.json").read_text())
    found = summary["more"]["tfidf"]
    # The kinds share no word but one, which occurs everywhere.
    assert found["accuracy"] == {"pieces": 1.0, "words": 1.0}
    assert "k-NN on TF-IDF: 100.0 % on the same tokens" in summary["verdict"]


def test_similarity_of_pairs(run, folder):
    lines = [
        f"{5 * same}\t{sentence(ANIMALS, i)}\t{sentence(ANIMALS if same else TOOLS, i + 50)}"
        for i in range(12)
        for same in (0, 1)
    ]
    (folder / "pairs.tsv").write_text("\n".join(lines))
    found = sts(run, TEXT, CPU, pairs=str(folder / "pairs.tsv"))
    assert list(found["spearman"]) == ["raw", "untrained", "trained", "tfidf"]
    assert found["spearman"]["raw"] > 0.8
    assert found["pairs"] == 24
    assert found["words"].startswith("Spearman correlation with 24 similarities (x 100): bag of")


def test_retrieval_of_halves_and_of_a_judged_set(run, folder):
    found = retrieval(run, TEXT, CPU, limit=20)
    assert set(found) == {*NAMES, "words"}
    assert all(0 <= found[name]["ndcg@10"] <= 1 for name in NAMES)
    place = folder / "beir"
    (place / "qrels").mkdir(parents=True)
    corpus = [{"_id": w, "title": w, "text": f"about the {w}"} for w in ANIMALS]
    asked = [{"_id": f"q-{w}", "text": w} for w in ANIMALS]
    for name, rows in (("corpus", corpus), ("queries", asked)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q-{w}\t{w}\t1\n" for w in ANIMALS[:3])
    (place / "qrels" / "test.tsv").write_text(
        f"query-id\tcorpus-id\tscore\n{judged}q-hen\tcat\t0\n"
    )
    queries, documents, relevant = read_beir(place)
    assert (queries, documents[0], relevant) == (ANIMALS[:3], "cat about the cat", [[0], [1], [2]])
    assert retrieval(run, TEXT, CPU, folder=str(place))["raw"]["recall@10"] == 1
    (place / "qrels" / "test.tsv").write_text("q-cat\tnobody\t1\n")
    with pytest.raises(UserError, match=r"line 1 .* names no query and document"):
        read_beir(place)


def test_clusters_of_held_out_documents(run):
    found = clustering(run, TEXT, CPU)
    assert found["tfidf"]["nmi"] == pytest.approx(1.0)
    assert found["raw"]["accuracy"] == pytest.approx(1.0)
    assert "V-measure of 2 clusters" in found["words"]


def test_evaluate_reaches_them_by_name(run):
    found = api.evaluate(run, more={"clustering": {"seed": 1}}, probe=False)
    assert found["more"]["clustering"]["raw"]["accuracy"] == 1
    assert "V-measure" in found["verdict"]


# Tagging --------------------------------------------------------------------------------------


def test_tags_of_words_from_frozen_states(run, folder):
    files = {}
    for side, seeds in (("train", range(30)), ("test", range(30, 40))):
        lines = []
        for seed in seeds:
            words = sentence(ANIMALS + TOOLS, seed).split()
            tag = {"the": "DET"} | dict.fromkeys(ANIMALS, "LIVING")
            lines += [f"{word}\t_\t{tag.get(word, 'THING')}" for word in words] + [""]
        files[side] = folder / f"{side}.conll"
        files[side].write_text("-DOCSTART- O\n\n# text\n" + "\n".join(lines))
    found = tagging(run, TEXT, CPU, train=str(files["train"]), test=str(files["test"]))
    assert found["tags"] == ["DET", "LIVING", "THING"]
    assert found["accuracy"]["raw"] == 1
    assert found["accuracy"]["untrained"] > 0.9
    assert found["words_left_out"] == 0
    few = tagging(run, TEXT, CPU, train=str(files["train"]), test=str(files["test"]), limit=60)
    assert few["words_left_out"] == 150 - 60


def test_first_tokens_are_those_that_begin_a_word(run):
    reader = TEXT.load_reader(run.reader_folder)
    words = ["cat", "xyzzy", "the", "dog"]
    spans = reader.tokenizer.encode(" ".join(words), add_special_tokens=False).offsets
    found = first_tokens(words, reader)
    text = " ".join(words)
    for word, token in zip(words, found, strict=True):
        assert text[slice(*spans[token])].strip()[0] == word[0]
    assert found == sorted(set(found))
    assert first_tokens(["cat"] * 40, reader)[-1] == -1


def test_files_of_tags_name_the_bad_line(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("a X\n\nb\n")
    with pytest.raises(UserError, match=r"line 3 .* has a word and no tag"):
        read_tags(path)
    path.write_text("\n\n")
    with pytest.raises(UserError, match="holds no words"):
        read_tags(path)


# CaseHOLD -------------------------------------------------------------------------------------


def test_multiple_choice_from_both_starts(run, folder):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        picked = rng.permutation(ANIMALS)
        rows.append(
            {
                "context": f"the {picked[i % 3]}",
                "choices": [f"a {w}" for w in picked[:3]],
                "label": i % 3,
            }
        )
    path = folder / "choices.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    state = torch.get_rng_state()
    found = multiple_choice(run, TEXT, CPU, train=str(path), test=str(path), epochs=1)
    assert torch.equal(state, torch.get_rng_state())
    assert found["macro_f1"]["raw"] == found["macro_f1"]["tfidf"] == 1
    assert set(found["macro_f1"]) == set(NAMES)
    again = multiple_choice(run, TEXT, CPU, train=str(path), test=str(path), epochs=1)
    assert again == found
    table = folder / "choices.csv"
    table.write_text("citing_prompt,holding_0,holding_1,label\nabc,b,c,1\n")
    assert read_questions(table)[0].choices == ("b", "c")
    table.write_text("citing_prompt,holding_0,holding_1,label\nabc,b,c,2\n")
    with pytest.raises(UserError, match=r"question 1 of .*choices\.csv needs a context"):
        read_questions(table)


def test_pairs_fit_and_keep_both_parts(run, folder):
    reader = TEXT.load_reader(run.reader_folder)
    question = read_questions(folder / "choices.jsonl")[0]
    long = type(question)("cat " * 60, ("dog", "hen " * 60), 0)
    data = pairs([long], reader)
    assert data.lengths.tolist() == [24, 24]
    sep = reader.special.sep
    assert ((data.ids == sep) & data.valid).sum(1).tolist() == [2, 2]
    borders = (data.ids == sep).int().argmax(1).tolist()
    assert borders[0] > borders[1]  # the short choice leaves the context more room


def test_specificity_of_a_run_against_itself_is_zero(run, folder):
    assert specificity(run, TEXT, CPU, against=str(run.path))["specificity"] == 0
    other = api.pretrain(TEXT, run.recipe, steps=40, out=folder / "longer", progress=False)
    forth = specificity(other, TEXT, CPU, against=str(run.path))
    back = specificity(run, TEXT, CPU, against=str(other.path))
    assert forth["specificity"] == pytest.approx(-back["specificity"])
    assert forth["specificity"] > 0
    (run.checkpoints / "step-00000004" / "state.safetensors").rename(folder / "away")
    with pytest.raises(UserError, match="no masked language model and last checkpoint"):
        specificity(run, TEXT, CPU, against=str(run.path))


# Vectors of tokens ----------------------------------------------------------------------------


def test_a_vector_for_every_token(run):
    model = api.load(run.path, domain=TEXT)
    texts = ["the cat", "saw the dog " * 20]
    short, cut = embed_tokens(model, texts, batch_size=1)
    assert short.vectors.shape == (len(short.pieces), 16)
    assert "".join(texts[0][a:b] for a, b in short.spans) == texts[0]
    assert len(cut.pieces) == len(cut.spans) == len(cut.vectors) == 22
    data = model.reader.collate([model.reader.encode(text) for text in texts])
    states = model.encoder(data).tokens
    torch.testing.assert_close(states[0, 1 : 1 + len(short.pieces)], short.vectors)
    with pytest.raises(UserError, match="text 0: no tokens"):
        embed_tokens(model, [""])


def test_words_name_the_rivals_in_one_order():
    words = described("Score", {"trained": 0.5, "raw": 0.25})
    assert words == "Score (x 100): bag of tokens 25.0, trained 50.0."
