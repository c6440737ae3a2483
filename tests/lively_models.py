"""What the tests of engines share: a vocabulary, sentences, and small models that vary."""

import torch

from transformer.checks.fixtures import small_model
from transformer.data import BOS, EOS, PAD, encode, pad, train_tokenizer
from transformer.engines import Search
from transformer.inference import beam_search
from transformer.model import Transformer

TEXTS = [
    "the cat is on the mat",
    "il gatto è sul tappeto",
    "a dog",
    "the mat",
    "cat",
    "a gatto on il tappeto is on it",
]
TOKENIZER = train_tokenizer(TEXTS * 3, 50)
SIZE = TOKENIZER.get_vocab_size()
RANDOM = torch.Generator().manual_seed(0)
ROWS = encode(TOKENIZER, TEXTS) + [
    [*torch.randint(3, SIZE, (n,), generator=RANDOM).tolist(), EOS] for n in range(1, 20)
]


def lively(norm: str = "post", seed: int = 0, end: float = 2.0, **changes) -> Transformer:
    """Return a model whose translations differ in words and length, without padding and <s>."""
    torch.manual_seed(seed)
    sizes = dict(vocab_size=SIZE, max_len=24, norm=norm, dropout=0.5) | changes
    model = small_model(**sizes).requires_grad_(False).eval()
    last_layer = model.decoder.layers[-1]
    last_norm = last_layer.residuals[-1].norm if norm == "post" else model.decoder.norm
    model.positions.table.mul_(2)
    last_norm.gain.normal_(std=3)
    model.bias.sub_(model(*torch.randint(3, SIZE, (2, 50, 6))).mean((0, 1)))
    model.bias[EOS] += end
    model.bias[[PAD, BOS]] = -30
    return model


def without_padding(ids: torch.Tensor) -> list[list[int]]:
    """Return rows of ids as lists, without their padding."""
    return [[i for i in row if i != PAD] for row in ids.tolist()]


def found(
    model: Transformer, rows: list[list[int]], beam_size: int, penalty: float, max_len: int
) -> list[list[int]]:
    """Return what `beam_search` finds, without padding."""
    ids, _ = beam_search(model, pad(rows), beam_size, penalty, max_len)
    return without_padding(ids)


def search(
    engine, rows: list[list[int]], beam_size: int = 5, penalty: float = 1.0, max_len: int = 64
) -> list[list[int]]:
    """Return what an engine finds for a single group."""
    (result,) = search_groups(engine, [(rows, max_len)], beam_size, penalty)
    return result


def search_groups(
    engine, groups: list[tuple], beam_size: int = 5, penalty: float = 1.0
) -> list[list[list[int]]]:
    """Return the ids of the best hypotheses that an engine finds for each group."""
    results = engine.search_all(groups, Search(beam_size, penalty))
    return [[best[0].ids for best in group] for group in results]
