"""A start from counted words: the translations that IBM's model 1 finds, before the first step.

The first epochs of a translator go into finding out which word stands for which. Most of this can
be counted in a few seconds: a word's translation is in every sentence that translates the word.
Each token of the source starts with a mixture of its translations' embeddings, and the output
layer's bias with how often each token is written.

Source: Brown et al. 1993, "The Mathematics of Statistical Machine Translation", model 1.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from transformer.data import PAD, Pair, batches_by_length, collate
from transformer.model import Transformer

MOST_LINKS = 20_000_000
"""How many pairs of words are counted, at most: memory grows with them. A caption has about 250."""
ROUNDS = 5
"""Of expectation maximization, after which the probabilities hardly change."""
COUNTED = 0.9
"""The part of the bias's distribution that is counted; the rest is the same for every token."""


def start_from_lexicon(model: Transformer, pairs: Sequence[Pair], strength: float) -> None:
    """Set the model's bias and its embeddings of source tokens to what the pairs suggest.

    With a strength of 1 a source token starts as the mean of its translations, each weighted by its
    probability, and with 0 as it was. The mean of many different translations is short, so between
    0 and 1 it counts for less. Lengths stay, and so do the rows of tokens that targets share.
    """
    pairs = list(first_of(pairs))
    read, written = counts_of(pairs, len(model.bias))
    translations = translation_probabilities(pairs, len(model.bias))
    with torch.no_grad():
        weight = model.embedding.weight
        lengths = weight.norm(dim=1, keepdim=True)
        means = translations.to(weight.device) @ weight
        mixed = torch.lerp(weight, means, strength)
        mixed *= lengths / mixed.norm(dim=1, keepdim=True).clamp_min(1e-9)
        from_source = (read > 2 * written).unsqueeze(1).to(weight.device)
        weight.copy_(mixed.where(from_source, weight))
        share = COUNTED * written / written.sum() + (1 - COUNTED) / len(written)
        model.bias.copy_(share.log() - share.log().mean())


def first_of(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Yield as many pairs as can be counted, and at least one."""
    found = 0
    for src, tgt in pairs:
        yield src, tgt
        found += len(src) * len(tgt)
        if found >= MOST_LINKS:
            return


def counts_of(pairs: Sequence[Pair], vocab_size: int) -> tuple[Tensor, Tensor]:
    """Return how often each token is in a source, and how often it is a label."""
    read = torch.tensor([i for src, _ in pairs for i in src])
    written = torch.tensor([i for _, tgt in pairs for i in tgt[1:]])
    return read.bincount(minlength=vocab_size), written.bincount(minlength=vocab_size)


def translation_probabilities(
    pairs: Sequence[Pair], vocab_size: int, rounds: int = ROUNDS
) -> Float[Tensor, "vocab vocab"]:
    """Return a sparse matrix of the probability that a source token is translated by a target's.

    Each label is explained by one token of its source. In a round, every label is shared out among
    the tokens of its source in proportion to their probabilities of it; then each token's shares,
    divided by their sum, are its new probabilities. The </s> that ends every source explains the
    words that translate none.
    """
    keys, labels = links(pairs, vocab_size)
    keys, link = keys.unique(return_inverse=True)
    sources = keys // vocab_size
    targets = keys % vocab_size
    probabilities = torch.ones(len(keys))
    for _ in range(rounds):
        weights = probabilities[link]
        weights /= sums(labels, weights)[labels]
        shares = sums(link, weights)
        probabilities = shares / sums(sources, shares)[sources]
    size = (vocab_size, vocab_size)
    places = torch.stack([sources, targets])
    return torch.sparse_coo_tensor(places, probabilities, size, check_invariants=False)


def links(pairs: Sequence[Pair], vocab_size: int) -> tuple[Tensor, Tensor]:
    """Return every source token with every label of its pair, and the number of that label.

    The two tokens s and t are one number, s · vocab_size + t.
    """
    keys = []
    labels = []
    counted = 0
    for group in batches_by_length(pairs, max_tokens=4096):
        batch = collate(group)
        src = batch.src[:, None, :]
        tgt = batch.labels[:, :, None]
        real = (src != PAD) & (tgt != PAD)
        numbers = torch.arange(tgt.numel()).view_as(tgt) + counted
        keys.append((src * vocab_size + tgt)[real])
        labels.append(numbers.expand_as(real)[real])
        counted += tgt.numel()
    return torch.cat(keys), torch.cat(labels)


def sums(groups: Tensor, values: Tensor) -> Tensor:
    """Return the sum of the values of each group, from group 0 to the last."""
    return torch.zeros(int(groups.max()) + 1).index_add_(0, groups, values)
