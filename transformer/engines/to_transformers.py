"""A model of the course as a folder that `transformers` loads: a Marian with another table."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenizers.processors import TemplateProcessing

from transformer.data import SPECIAL, load_tokenizer
from transformer.model import Transformer
from transformer.pretrained import PublishedConfig, PublishedTransformer, save_pretrained


def export_transformers(model: Transformer, tokenizer: str | Path, out: str | Path) -> Path:
    """Write a model and its tokenizer.json for `transformers`, and return the folder.

    There it is a MarianMTModel, which has the paper's arrangement; the positions of chapter 2 are
    written into the file, because Marian's own are in another order. Raises ValueError for pre-norm
    or a tokenizer that does not fit, OSError if `out` cannot be written.
    """
    c = model.config
    if c.norm != "post":
        raise ValueError("transformers has no such model in pre-norm: only norm=post is exported")
    options: dict[str, Any] = dict(
        source_vocab_size=c.vocab_size,
        encoder_layers=c.n_layers,
        encoder_heads=c.n_heads,
        encoder_d_ff=c.d_ff,
        activation="relu",
        positions="paper",
        logits_bias=True,
        banned=c.banned_ids,
    )
    twin = PublishedTransformer(PublishedConfig(**asdict(c) | options))
    twin.load_state_dict(model.state_dict())
    text = load_tokenizer(tokenizer, c.vocab_size)
    ends = [(SPECIAL[2], c.eos_id)]
    text.post_processor = TemplateProcessing(single=f"$A {SPECIAL[2]}", special_tokens=ends)
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    rules = {
        "decoder_start_token_id": c.bos_id,
        "pad_token_id": c.pad_id,
        "eos_token_id": c.eos_id,
        "bad_words_ids": [[i] for i in c.banned_ids],
        "num_beams": 5,
        "early_stopping": True,
        "max_length": c.max_len,
    }
    return save_pretrained(
        twin,
        out,
        tokenizer=json.loads(text.to_str()),
        tokenizer_config=names | {"tokenizer_class": "PreTrainedTokenizerFast"},
        generation_config=rules,
    )
