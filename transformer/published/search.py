"""Search by the rules of a checkpoint, so that the result is that of `transformers`' `generate`.

The searches and their cache are chapter 12's. A rule is either another decoder, which changes
logits, or another answer to when a sentence is complete.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from transformer.inference import (
    Finished,
    IncrementalDecoder,
    MakeDecoder,
    TokenDecoder,
    collect,
    greedy_search,
    mask_special_tokens,
)
from transformer.model import Transformer, inference_context
from transformer.published.families import generation_settings

UNSUPPORTED = {
    "no_repeat_ngram_size": (0, None),
    "repetition_penalty": (1.0, None),
    "encoder_no_repeat_ngram_size": (0, None),
    "min_length": (0, None),
    "num_beam_groups": (1, None),
    "do_sample": (False, None),
}
"""Settings of a search that this one lacks, and the values with which they do nothing."""


@dataclass(frozen=True)
class SearchRules:
    """How a checkpoint wants to be searched; the defaults are those of `transformers`.

    `first_id` is the forced first token, a language in M2M100 and NLLB, and `last_id` the one that
    is forced when `max_len` tokens are reached. `early_stopping` True ends a sentence as soon as
    `beam_size` hypotheses have ended, False only when the best one that goes on cannot be better
    than the worst of them at its present length. With `renormalize`, the probabilities without
    banned tokens sum to 1.
    """

    beam_size: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    max_len: int = 512
    first_id: int | None = None
    last_id: int | None = None
    renormalize: bool = False


def read_rules(folder: str | Path) -> SearchRules:
    """Read generation_config.json, or config.json if there is none.

    Raises ValueError for a rule that the search does not have.
    """
    settings = generation_settings(folder)
    for name, harmless in UNSUPPORTED.items():
        if settings.get(name) not in harmless:
            raise ValueError(f"{folder}: {name}={settings[name]!r} is not supported")
    phrases = [ids for ids in settings.get("bad_words_ids") or [] if len(ids) != 1]
    if phrases:
        raise ValueError(f"{folder}: bad_words_ids has a phrase, {phrases[0]}; only single ids")
    if settings.get("early_stopping") not in (None, False, True):
        early = settings["early_stopping"]
        raise ValueError(f"{folder}: early_stopping={early!r} is not supported")
    return SearchRules(
        beam_size=setting(settings, "num_beams", 1),
        length_penalty=float(setting(settings, "length_penalty", 1.0)),
        early_stopping=bool(settings.get("early_stopping")),
        max_len=max(setting(settings, "max_length", 513) - 1, 1),  # theirs counts the start token
        first_id=settings.get("forced_bos_token_id"),
        last_id=settings.get("forced_eos_token_id"),
        renormalize=bool(settings.get("renormalize_logits")),
    )


def setting(settings: dict, name: str, default: Any) -> Any:
    """Return a setting; null is the default, too."""
    value = settings.get(name)
    return default if value is None else value


class RuledDecoder(TokenDecoder):
    """Another decoder, whose logits obey the rules: banned, first and last tokens."""

    def __init__(self, rules: SearchRules, make: MakeDecoder, model: Transformer, src: Tensor):
        self.decoder = make(model, src)
        self.rules = rules
        self.last = min(rules.max_len, model.config.max_len)
        self.banned = model.config.banned_ids if rules.renormalize else []
        self.written = 0
        self.argmax = self.decoder.argmax
        self.best_extensions = self.decoder.best_extensions
        self.reorder = self.decoder.reorder

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b vocab"]:
        logits = self.decoder.step(ids)
        self.written += 1
        for i in self.banned:
            logits[:, i] = -math.inf
        if self.written == 1 and self.rules.first_id is not None:
            return forced(logits, self.rules.first_id)
        if self.written == self.last and self.rules.last_id is not None:
            return forced(logits, self.rules.last_id)
        return logits


def forced(logits: Float[Tensor, "b vocab"], i: int) -> Float[Tensor, "b vocab"]:
    """Return logits that give all probability to token `i`, in place."""
    logits.fill_(-math.inf)
    logits[:, i] = 0.0
    return logits


def ruled(rules: SearchRules, make: MakeDecoder = IncrementalDecoder) -> MakeDecoder:
    """Return a decoder for the searches of chapter 12 that obeys the rules.

    Give the search the same max_len as the rules have.
    """
    return partial(RuledDecoder, rules, make)


def ruled_hypotheses(
    model: Transformer, src: Int[Tensor, "b k"], rules: SearchRules, make: MakeDecoder
) -> Finished:
    """Return the finished hypotheses of each sentence, by the rules.

    The loop is that of chapter 12's `beam_hypotheses`, except that `is_complete` says when a
    sentence ends.
    """
    config = model.config
    finished: Finished = [[] for _ in src]
    with inference_context(model):
        steps = RuledDecoder(rules, make, model, src)
        sentences = torch.arange(len(src), device=src.device)
        written = src.new_full((len(src), 1), config.bos_id)
        scores = torch.zeros(len(src), 1, device=src.device)
        for t in range(1, rules.max_len + 1):
            logits = steps.step(written[:, -1]).float()
            log_probs = mask_special_tokens(logits.log_softmax(-1), config)
            scores, rows, tokens = steps.best_extensions(log_probs, scores, 2 * rules.beam_size)
            longer = torch.cat([written[rows], rearrange(tokens, "b c -> b c 1")], dim=-1)
            ended = ((tokens == config.eos_id) | (t == rules.max_len)) & scores.isfinite()
            collect(
                finished,
                sentences,
                longer,
                scores,
                ended[:, : rules.beam_size],
                rules.length_penalty,
            )
            alive = scores.masked_fill(ended, -math.inf)
            best = (alive.amax(1) / t**rules.length_penalty).tolist()
            found = [finished[s] for s in sentences.tolist()]
            going = [i for i in range(len(found)) if not is_complete(found[i], best[i], rules)]
            if not going:
                break
            scores, kept = alive[going].topk(min(rules.beam_size, alive.shape[1]))
            written = longer[going].gather(1, repeat(kept, "... -> ... t", t=t + 1)).flatten(0, 1)
            sentences = sentences[going]
            steps.reorder(rows[going].gather(1, kept))
    return finished


def is_complete(hypotheses: list[tuple], best_rank: float, rules: SearchRules) -> bool:
    """Return whether the search for a sentence ends.

    It has `beam_size` finished hypotheses and, unless `early_stopping`, the best of these are at
    least as good as the best one that goes on would be if it ended now.
    """
    if len(hypotheses) < rules.beam_size or rules.early_stopping:
        return len(hypotheses) >= rules.beam_size
    worst = heapq.nlargest(rules.beam_size, (rank for rank, *_ in hypotheses))[-1]
    return best_rank <= worst


def search_rows(
    model: Transformer,
    src: Int[Tensor, "b k"],
    rules: SearchRules,
    make: MakeDecoder = IncrementalDecoder,
    scores: bool = False,
) -> list[list[tuple[Sequence[int], float]]]:
    """Return the best hypotheses of each sentence, best first, as ids and scores.

    The ids are without start and padding; the score is log-probability / length ** length_penalty,
    and nan of greedy search unless `scores` are asked for. Sources are padded with `pad_id`.
    """
    if len(src) == 0:
        return []
    rules = replace(rules, max_len=min(rules.max_len, model.config.max_len))
    if rules.beam_size == 1 and not scores:
        rows = greedy_search(model, src, rules.max_len, ruled(rules, make)).tolist()
        pad_id = model.config.pad_id
        return [[([i for i in row if i != pad_id], math.nan)] for row in rows]
    found = ruled_hypotheses(model, src, rules, make)
    return [best_first(hypotheses, rules.beam_size) for hypotheses in found]


def best_first(hypotheses: list[tuple], n: int) -> list[tuple[Sequence[int], float]]:
    """Return the best n of a sentence's finished hypotheses, best first."""
    ranked = sorted(hypotheses, key=lambda hypothesis: -hypothesis[0])[:n]
    return [(ids.tolist(), rank) for rank, _, ids in ranked]
