"""Beam search the long way, one sentence at a time and without a cache, with switches for bugs."""

import torch

from transformer.data import pad
from transformer.inference import inference_context, mask_special_tokens


def plain_beam_search(model, src, beam_size=5, length_penalty=1.0, max_len=64, **switches):
    """Return ids and log-probabilities as `beam_search` does."""
    if beam_size < 1:
        raise ValueError("beam_size must be at least 1")
    sizes = (beam_size, length_penalty, max_len)
    with inference_context(model):
        found = [one_sentence(model, row, *sizes, **switches) for row in src.unsqueeze(1)]
    rows = pad([ids[1:] for _, ids in found], model.config.pad_id)
    return rows.to(src.device), torch.tensor([score for score, _ in found], device=src.device)


def one_sentence(
    model,
    src,
    n,
    penalty,
    max_len,
    score=torch.log_softmax,
    keeps_finished=True,
    stops=True,
    enough=None,
):
    """Return score and ids of the best hypothesis."""
    eos = model.config.eos_id
    alive = [(0.0, [model.config.bos_id])]
    finished = []
    for _ in range(max_len):
        options = extensions(model, src, alive, score)[: 2 * n]
        ended = [option for option in options[:n] if option[1][-1] == eos and stops]
        finished = finished + ended if keeps_finished else ended
        alive = [option for option in options if option[1][-1] != eos or not stops][:n]
        if len(finished) >= (enough or n) or not alive:
            break
    else:
        finished = finished + [option for option in options[:n] if option not in finished]
    return max(finished, key=lambda option: option[0] / (len(option[1]) - 1) ** penalty)


def log_prob_of(model, src, ids):
    """Return the log-probability of each translation."""
    config = model.config
    begin = torch.full_like(ids[:, :1], config.bos_id)
    tgt = torch.cat([begin, ids], dim=1)[:, :-1]
    log_probs = model(src, tgt).log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return log_probs.masked_fill(ids == config.pad_id, 0.0).sum(-1)


def extensions(model, src, alive, score):
    """Return all extensions of the hypotheses by one token, best first, with their scores."""
    tgt = torch.tensor([ids for _, ids in alive], device=src.device)
    scores = score(model(src.expand(len(tgt), -1), tgt)[:, -1], -1)
    rows = mask_special_tokens(scores, model.config).tolist()
    found = [
        (old + new, [*ids, word])
        for (old, ids), row in zip(alive, rows, strict=True)
        for word, new in enumerate(row)
        if new > -1e30
    ]
    return sorted(found, key=lambda option: -option[0])
