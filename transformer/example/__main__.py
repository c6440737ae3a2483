"""Train the model of the running example anew: `python -m transformer.example FOLDER`.

This takes about four minutes on one core. The course uses the files that are stored beside this
module; put new ones there only if all its numbers are to change, and run every chapter again.
"""

import argparse
import tempfile
from pathlib import Path

from transformer.corpora import english_italian
from transformer.data import decode, encode, load_tokenizer, pad
from transformer.files import atomic_write
from transformer.inference import greedy_search
from transformer.metrics import exact_match
from transformer.model import load_model
from transformer.recipes import Preset, fit
from transformer.training import TrainingConfig

FILES = ("config.json", "model.safetensors", "tokenizer.json")
PRESET = Preset(
    vocab_size=600,  # as the course's translator, so the ids are the same; the corpus fills 588
    sizes=dict(d_model=24, n_heads=4, n_layers=2, d_ff=48, dropout=0.0, max_len=64),
    training=TrainingConfig(
        steps=1500,
        warmup=200,
        peak_lr=1e-2,
        label_smoothing=0.0,
        ema_decay=0.999,
        validate_every=250,
    ),
)


def make(folder: Path) -> float:
    """Train the model, write it into `folder`, and return its share of exact translations.

    The share is that of 500 validation sentences.
    """
    corpus = english_italian()
    with tempfile.TemporaryDirectory() as draft:
        fit(corpus, draft, PRESET, precision="fp32")
        for name in FILES:
            atomic_write(folder / name, (Path(draft) / name).read_bytes())
    model = load_model(folder)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    english, italian = zip(*corpus.val[:500], strict=True)
    ids = greedy_search(model, pad(encode(tokenizer, english)))
    return exact_match(decode(tokenizer, ids.tolist()), italian)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the model of the running example.")
    parser.add_argument("folder", type=Path, help="where to write the three files")
    print(f"exact: {make(parser.parse_args().folder):.1%}")
