"""Random translations of texts, for a choice among them (minimum Bayes risk)."""

from collections.abc import Iterable

import torch

from transformer.data import pad
from transformer.engines import PyTorchEngine
from transformer.inference import sample
from transformer.reader import OnProblem, warn_about
from transformer.texts import clean
from transformer.translator import Translator, groups_by_length


def sample_translations(
    translator: Translator,
    texts: Iterable[str],
    count: int,
    temperature: float = 1.0,
    seed: int = 0,
    max_tokens: int = 4096,
    on_problem: OnProblem = warn_about,
) -> list[list[str]]:
    """Draw `count` translations of every text by their probability, with PyTorch.

    The same arguments give the same draws. A text that cannot be translated has none; the other
    arguments are those of `Translator.n_best`. ValueError for a `temperature` that is not above 0,
    and if the translator's engine is another one.
    """
    if not isinstance(translator.engine, PyTorchEngine):
        raise ValueError("only the engine pytorch draws samples")
    model = translator.model
    rows = translator.read(texts, on_problem)
    readable = [i for i, row in enumerate(rows) if row]
    generator = torch.Generator(model.bias.device).manual_seed(seed)
    found: list[list[str]] = [[] for _ in rows]
    for group in groups_by_length([rows[i] for i in readable], max_tokens // count):
        many = [rows[readable[i]] for i in group for _ in range(count)]
        longest = translator.most_tokens(max(map(len, many)))
        src = pad(many, model.config.pad_id).to(model.bias.device)
        make = translator.engine.decoder
        ids = sample(model, src, temperature, None, longest, generator, make)
        drawn = [clean(text) for text in translator.write(ids.tolist())]
        for position, i in enumerate(group):
            found[readable[i]] = drawn[position * count : (position + 1) * count]
    return found
