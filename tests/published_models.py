"""Small random checkpoints of each family, written by `transformers`."""

import json
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceTrainer
from torch import Tensor
from transformers import (
    FSMTConfig,
    FSMTForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
)

SIZES = dict(
    d_model=16,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=4,
    encoder_ffn_dim=32,
    decoder_ffn_dim=24,
    max_position_embeddings=40,
    init_std=0.4,
)
SENTENCES = [
    "there is a cat on the mat",
    "I love you very much!",
    "the dog sees a red book, and the girl sees the boy",
    "c'è un gatto sul tappeto",
    "ti amo molto",
    "Il cane vede un libro rosso … e la ragazza?",
]
CODES = ["en", "it", "de"]


def marian(**changes: Any) -> MarianMTModel:
    """Return a random Marian model; decoding starts with padding, the last id."""
    size = changes.get("decoder_vocab_size") or changes.get("vocab_size", 40)
    own = dict(
        vocab_size=40,
        pad_token_id=size - 1,
        decoder_start_token_id=size - 1,
        eos_token_id=0,
        activation_function="swish",
        scale_embedding=True,
    )
    model = shaken(MarianMTModel(MarianConfig(**SIZES | own | changes)))
    model.final_logits_bias.normal_()
    model.final_logits_bias[0, model.config.eos_token_id] += 3
    return banning(model, model.config.pad_token_id)


def fsmt(**changes: Any) -> FSMTForConditionalGeneration:
    """Return a random model as those of facebook/wmt19-* are."""
    own = dict(src_vocab_size=40, tgt_vocab_size=30)
    model = shaken(FSMTForConditionalGeneration(FSMTConfig(**SIZES | own | changes)))
    model.model.decoder.output_projection.weight.data[2] *= 1.5
    return banning(model, 1)


def m2m100(**changes: Any) -> M2M100ForConditionalGeneration:
    """Return a random model as those of M2M100 and NLLB are."""
    model = shaken(
        M2M100ForConditionalGeneration(M2M100Config(**SIZES | dict(vocab_size=40) | changes))
    )
    return banning(model, 1)


def shaken(model: Any) -> Any:
    """Return the model, in eval mode, with norms and biases that are not 1 and 0."""
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def banning(model: Any, pad_id: int) -> Any:
    """Return the model, with padding banned from what it writes."""
    model.generation_config.update(bad_words_ids=[[pad_id]], num_beams=5)
    return model


def batch(model: Any, sentences: int = 200, longest: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Return padded sources, which tokens are real, and targets that begin with the start token."""
    config = model.config
    source_size = getattr(config, "src_vocab_size", None) or config.vocab_size
    target_size = getattr(config, "decoder_vocab_size", None) or config.vocab_size
    pad_id = config.pad_token_id
    src = torch.randint(3, min(source_size, 29), (sentences, longest))
    lengths = torch.randint(2, longest, (sentences,))
    place = torch.arange(longest)
    src[place == lengths[:, None]] = config.eos_token_id
    src[place > lengths[:, None]] = pad_id
    tgt = torch.randint(3, min(target_size, 29), (sentences, 7))
    tgt[:, 0] = config.decoder_start_token_id
    return src, place <= lengths[:, None], tgt


# --- tokenizers -----------------------------------------------------------------------------------


def write_pieces(path: Path, size: int = 60) -> list[str]:
    """Train a sentencepiece model, and return its pieces."""
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_prefix=str(path.with_suffix("")),
        vocab_size=size,
        character_coverage=0.99,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    path.with_suffix(".model").replace(path)
    lines = path.with_suffix(".vocab").read_text(encoding="utf-8").splitlines()
    path.with_suffix(".vocab").unlink()
    return [line.split("\t")[0] for line in lines]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_marian_tokens(folder: Path, separate: bool = False) -> int:
    """Write the files of a Marian tokenizer, and return the number of ids."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = write_pieces(folder / "source.spm") + write_pieces(folder / "target.spm", 58)
    plain = sorted(set(pieces) - {"<unk>", "<s>", "</s>"})
    plain.remove("▁bo")  # a piece that is not in the vocabulary
    tokens = ["</s>", "<unk>", *plain, ">>ita<<", ">>deu<<", "<pad>"]
    write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    if separate:
        write_json(
            folder / "target_vocab.json", {t: i for i, t in enumerate(tokens[:1] + tokens[1:])}
        )
    write_json(folder / "tokenizer_config.json", {"separate_vocabs": separate})
    return len(tokens)


def write_m2m100_tokens(folder: Path) -> int:
    """Write the files of an M2M100 tokenizer, and return the number of ids."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = write_pieces(folder / "sentencepiece.bpe.model")
    plain = sorted(set(pieces) - {"<unk>", "<s>", "</s>"})
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *plain]
    write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    return len(tokens)


def write_fsmt_tokens(folder: Path) -> tuple[int, int]:
    """Write the files of an FSMT tokenizer, and return the numbers of ids."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = (
        "t h|th e</w>|i s</w>|a t</w>|c at</w>|m at</w>|o n</w>|a n|an d</w>|s e|se e|see s</w>"
    )
    pairs = [pair.split() for pair in merges.split("|")]
    (folder / "merges.txt").write_text("".join(f"{a} {b} 9\n" for a, b in pairs), encoding="utf-8")
    letters = [*"abcdefghijlmnoprstuvwyIc'.,!?\"èàòù", "&apos;"]
    known = {*letters, *(f"{c}</w>" for c in letters), *(a + b for a, b in pairs)}
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(known)]
    write_json(folder / "vocab-src.json", {token: i for i, token in enumerate(tokens)})
    write_json(folder / "vocab-tgt.json", {token: i for i, token in enumerate(tokens[:-3])})
    write_json(folder / "tokenizer_config.json", {"langs": ["en", "de"], "do_lower_case": False})
    return len(tokens), len(tokens) - 3
