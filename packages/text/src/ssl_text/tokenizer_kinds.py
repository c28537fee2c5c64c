"""Tokenizers by kind: bytes, word pieces, unigrams, characters, amino acids.

Training is a function of the documents in every process, so that two runs agree, but for
unigrams: their trainer adds up in the order of a hash table and may settle a tie differently.
Scores are rounded and pieces listed by score and spelling, which hides most of it; a run resumes
with the tokenizer it saved, and `data.options.tokenizer` takes that to another. The library's
WordPiece trainer is not: it numbers pieces in the order of a hash table. Pieces are therefore
found by its BPE trainer, whose result is the same everywhere, and counted as first or later part
of a word.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ssl_core.data.tokenizer import SPECIALS, counted, train_tokenizer

AMINO = "ABCDEFGHIKLMNOPQRSTUVWXYZ"
"""TAPE's letters after its five specials, in order; J names no residue."""


def trained(kind: str, documents: Iterable[str], *, vocab_size: int, lowercase: bool) -> Tokenizer:
    """A tokenizer of at most `vocab_size` pieces, the specials first."""
    return _KINDS[kind](documents, vocab_size, lowercase)


def _bpe(documents: Iterable[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    return train_tokenizer(documents, vocab_size=vocab_size, lowercase=lowercase)


def _normalizer(lowercase: bool) -> normalizers.Normalizer:
    return normalizers.Sequence(
        [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    )


def word_pieces(documents: Iterable[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    """WordPiece (Wu et al. 2016) as BERT uses it: greedy, "##" before later parts of a word."""
    finder = Tokenizer(models.BPE())
    finder.normalizer = _normalizer(lowercase)
    finder.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    kept = list(counted(documents))
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, show_progress=False)
    finder.train_from_iterator(kept, trainer)
    seen: Counter[str] = Counter()
    letters: set[str] = set()
    for document in kept:
        found = finder.encode(document, add_special_tokens=False)
        before = None
        for piece, word in zip(found.tokens, found.word_ids, strict=True):
            later = word is not None and word == before
            seen[f"##{piece}" if later else piece] += 1
            letters.update(piece)
            before = word
    single = sorted(letters) + [f"##{letter}" for letter in sorted(letters)]
    ranked = sorted(seen, key=lambda piece: (-seen[piece], piece))
    pieces = list(dict.fromkeys([*SPECIALS, *single, *ranked]))[:vocab_size]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = _normalizer(lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def unigrams(documents: Iterable[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    """A unigram language model over pieces (Kudo 2018), as SentencePiece and T5 use it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = _normalizer(lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        unk_token="[UNK]",
        show_progress=False,
    )
    tokenizer.train_from_iterator(counted(documents), trainer)
    return _canonical(tokenizer)


def _canonical(tokenizer: Tokenizer) -> Tokenizer:
    """The same unigram model with rounded scores, pieces in the order of score and spelling."""
    model = json.loads(tokenizer.to_str())
    vocabulary = model["model"]["vocab"]
    first = len(SPECIALS)
    rest = [(piece, round(score, 4)) for piece, score in vocabulary[first:]]
    rest.sort(key=lambda entry: (-entry[1], entry[0]))
    model["model"]["vocab"] = [*vocabulary[:first], *rest]
    return Tokenizer.from_str(json.dumps(model))


def characters(documents: Iterable[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    """One piece a character; the commonest that fit, the rest are [UNK]."""
    normalizer = _normalizer(lowercase)
    seen: Counter[str] = Counter()
    for document in counted(documents):
        seen.update(normalizer.normalize_str(document))
    ranked = sorted(seen, key=lambda letter: (-seen[letter], letter))
    return _letters([*SPECIALS, *ranked][:vocab_size], normalizer)


def amino_acids(documents: Iterable[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    """TAPE's 30 pieces (Rao et al. 2019): five specials in its order, then `AMINO`.

    Sequences count in capitals, whatever `lowercase` says; an unknown letter is <unk>.
    """
    specials = ["<pad>", "<mask>", "<cls>", "<sep>", "<unk>"]
    upper = normalizers.Sequence(
        [normalizers.NFC(), _upper(), normalizers.Replace(Regex(r"\s"), "")]
    )
    return _letters([*specials, *AMINO], upper, specials=specials)


def _upper() -> normalizers.Normalizer:
    """Capitals of the 26 letters; the library has no such normalizer."""
    small = [normalizers.Replace(chr(code), chr(code - 32)) for code in range(97, 123)]
    return normalizers.Sequence(small)


def _letters(
    pieces: list[str], normalizer: normalizers.Normalizer, *, specials: Iterable[str] = SPECIALS
) -> Tokenizer:
    unknown = next(piece for piece in pieces if piece.lower() in ("[unk]", "<unk>"))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


_KINDS: dict[str, Callable[[Iterable[str], int, bool], Tokenizer]] = {
    "bpe": _bpe,
    "wordpiece": word_pieces,
    "unigram": unigrams,
    "character": characters,
    "amino": amino_acids,
}
