"""Beam search the long way, one sentence at a time and without a cache, with switches for what people forget."""

import torch

from transformer.data import pad
from transformer.inference import decoding, only_words


def plain_beam_search(model, src, beam_size=5, length_penalty=1.0, max_len=64, **switches):
    """Return ids and log-probabilities as `beam_search` does."""
    if beam_size < 1:
        raise ValueError("beam_size must be at least 1")
    with decoding(model):
        found = [one_sentence(model, row, beam_size, length_penalty, max_len, **switches) for row in src.unsqueeze(1)]
    rows = pad([ids[1:] for _, ids in found], model.config.pad_id)
    return rows.to(src.device), torch.tensor([score for score, _ in found], device=src.device)


def one_sentence(
    model, src, n, penalty, max_len, score=torch.log_softmax, keeps_finished=True, stops=True, starts=1, enough=None
):
    """Return score and ids of the best hypothesis."""
    eos, alive, finished = model.config.eos_id, [(0.0, [model.config.bos_id])] * starts, []
    for _ in range(max_len):
        tgt = torch.tensor([ids for _, ids in alive], device=src.device)
        scores = only_words(score(model(src.expand(len(tgt), -1), tgt)[:, -1], -1), model.config).tolist()
        options = [
            (s + new, [*ids, w]) for (s, ids), row in zip(alive, scores) for w, new in enumerate(row) if new > -1e30
        ]
        options = sorted(options, key=lambda option: -option[0])[: 2 * n]
        ended = [option for option in options[:n] if option[1][-1] == eos and stops]
        finished = finished + ended if keeps_finished else ended
        alive = [option for option in options if option[1][-1] != eos or not stops][:n]
        if len(finished) >= (enough or n) or not alive:
            break
    else:
        finished = finished + [option for option in options[:n] if option not in finished]
    return max(finished, key=lambda option: option[0] / (len(option[1]) - 1) ** penalty)
