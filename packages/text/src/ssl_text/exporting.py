"""A run as a folder other programs load: transformers' layout, and sentence-transformers' on it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from ssl_core.errors import UserError
from ssl_core.files import write_json
from ssl_core.runs.model import Model
from ssl_text.encoders.transformer import TextEncoder
from ssl_text.reader import TextReader


def export_transformers(model: Model, folder: Path) -> Path:
    """A folder for `AutoModel.from_pretrained` and `AutoTokenizer.from_pretrained`.

    Token states are those of the run's encoder; a BERT's pooling layer, which no method here
    trains, is not in it. Raises `UserError` for an encoder that is no transformers model.
    """
    encoder, reader = _parts(model)
    folder.mkdir(parents=True, exist_ok=True)
    network = copy.deepcopy(encoder.model)
    network.config._attn_implementation = "sdpa"
    network.save_pretrained(folder)
    _tokenizer(reader).save_pretrained(folder)
    return folder


def export_sentence_transformers(model: Model, folder: Path) -> Path:
    """The same with the files from which `SentenceTransformer(folder)` gives the run's vectors.

    Raises `UserError` for the pooling "mean", which leaves out [CLS] and [SEP]: the library's
    mean has them in, and its vectors would be others.
    """
    encoder, reader = _parts(model)
    if encoder.pooling == "mean":
        raise UserError(
            "format: sentence-transformers averages [CLS] and [SEP] too, this run does not; "
            "train with --set encoder.pooling=mean_all (or cls), or use format 'transformers'"
        )
    export_transformers(model, folder)
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling")
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": reader.max_length, "do_lower_case": False},
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {
        "pooling_mode_cls_token": encoder.pooling == "cls",
        "pooling_mode_mean_tokens": encoder.pooling == "mean_all",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": encoder.embed_dim, **modes},
    )
    return folder


def _parts(model: Model) -> tuple[TextEncoder, TextReader]:
    if not isinstance(model.encoder, TextEncoder) or not isinstance(model.reader, TextReader):
        raise UserError(
            f"format: {type(model.encoder).__name__} is no model of the transformers library; "
            "use format 'safetensors'"
        )
    return model.encoder, model.reader


def _tokenizer(reader: TextReader) -> Any:
    """The reader's tokenizer with its special pieces around each text, as transformers has it."""
    import transformers

    special = reader.special
    tokenizer = Tokenizer.from_str(reader.tokenizer.to_str())
    names = {
        role: tokenizer.id_to_token(getattr(special, role))
        for role in ("pad", "cls", "sep", "mask")
    }
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names['cls']} $A {names['sep']}",
        pair=f"{names['cls']} $A {names['sep']} $B:1 {names['sep']}:1",
        special_tokens=[(names["cls"], special.cls), (names["sep"], special.sep)],
    )
    unknown = next((t for t in ("[UNK]", "<unk>") if tokenizer.token_to_id(t) is not None), None)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=reader.max_length,
        unk_token=unknown,
        **{f"{role}_token": name for role, name in names.items()},
    )
