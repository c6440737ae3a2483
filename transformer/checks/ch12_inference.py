"""Checks of chapter 12: greedy search, beam search, sampling, and decoding with a cache."""

import functools
import math
from collections.abc import Callable

import torch
from einops import repeat
from torch import Tensor

from transformer.checks.cached import (
    computes_nothing_twice,
    hypotheses_are_reordered,
    position_suspects,
    sentences_leave,
)
from transformer.checks.fixtures import (
    LIVELY,
    SRC,
    TREES,
    best_of_all,
    decoding_model,
    greedy_by_hand,
    keys,
    log_probs_of,
    only_past,
    small_model,
    sources,
)
from transformer.checks.harness import CheckError, agree, call, check, expect, refuses, size
from transformer.inference import KVCache
from transformer.model import Transformer


def well_formed(ids: Tensor, model: Transformer, where: str) -> None:
    """Expect translations without <s>, and with nothing but padding after </s>."""
    config = model.config
    integers = ids.ndim == 2 and ids.dtype == torch.int64
    expect(integers, f"{where}: wanted ids b t of int64, got {size(ids)}")
    begins = (ids[:, 0] == config.bos_id).all()
    expect(not begins, f"{where}: the translations begin with <s>: leave it out")
    end = (ids == config.eos_id).int()
    ended = end.cumsum(-1) - end > 0
    padding = ids == config.pad_id
    cause = "A translation that never stops at </s> is cut off by luck"
    follows = (ended & ~padding).any()
    expect(not follows, f"{where}: tokens follow </s>, wanted padding. {cause}")
    early = (padding & ~ended).any()
    cause = "rule out <pad> and <s>"
    expect(not early, f"{where}: padding was written as a word, before </s>: {cause}")


def keeps_the_model(fn: Callable, model: Transformer, *args, **options):
    """Call a search with the model in train mode, and expect train mode afterwards."""
    model.train()
    result = call(fn, model, *args, **options)
    expect(model.training, "the model was left in eval mode: restore the mode it had")
    model.eval()
    return result


@check("equal to the slow way, stops at </s>, without dropout, model left as it was, max_len")
def check_greedy(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (model, src: b k, max_len) that gives ids b t.

    The ids are without <s>, with </s>, and padded.
    """
    for seed in LIVELY:
        model = decoding_model(device, seed=seed)
        src = sources(9, device)
        ids = keeps_the_model(fn, model, src, max_len=12)
        where = f"on src {size(src)} with max_len=12"
        well_formed(ids, model, where)
        expect(ids.shape[1] <= 12, f"{where}: {ids.shape[1]} tokens were written")
        writes_the_most_probable(ids, greedy_by_hand(model, src, 12), where)
    cut = call(fn, model, src, max_len=2)
    expect(cut.shape[1] <= 2, f"with max_len=2 it wrote {cut.shape[1]} tokens")


def writes_the_most_probable(ids: Tensor, want: Tensor, where: str) -> None:
    """Expect greedy translations; name the first token that differs."""
    steps = min(ids.shape[1], want.shape[1])
    wrong = (ids[:, :steps] != want[:, :steps]).any(0).nonzero()
    if len(wrong):
        at = wrong[0].item()
        cause = (
            "Is dropout off (model.eval()), is it the last position's logits, is each token read "
            "back in?"
        )
        found = f"token {at} is {ids[:, at].tolist()}, the most probable is {want[:, at].tolist()}"
        expect(False, f"{where}: {found}. {cause}")
    columns = f"{ids.shape[1]} columns, wanted {want.shape[1]}: stop when all have ended"
    expect(ids.shape == want.shape, f"{where}: {columns}")


def log_probs_are_true(
    model: Transformer, src: Tensor, ids: Tensor, log_probs: Tensor, where: str
) -> None:
    """Expect the log-probabilities to be those of their sequences."""
    true, raw = log_probs_of(model, src, ids)
    lengths = (ids != model.config.pad_id).sum(-1)
    logits = "Raw logits are added as if they were log-probabilities: take log_softmax first."
    divided = "They are divided by a length: return the log-probability itself."
    suspects = {logits: lambda: raw, divided: lambda: true / lengths}
    where = f"{where}: the scores are not the log-probabilities of their sequences"
    try:
        agree(log_probs, true, where, suspects, 1e-4)
    except CheckError as error:
        cause = "When hypotheses change places, the cache must move with them"
        explained = any(text in str(error) for text in suspects)
        raise error if explained else CheckError(f"{error}. {cause}") from None


@check(
    "true log-probabilities, width 1 is greedy, the widest finds the best of all, stops at </s>, "
    "model left as it was"
)
def check_beam_search(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (model, src, beam_size, length_penalty, max_len).

    It gives ids b t and their log-probabilities b.
    """
    for seed, tree in zip(LIVELY, TREES, strict=True):
        model = decoding_model(device, seed=seed)
        src = sources(9, device)
        options = dict(length_penalty=1.0, max_len=10)
        for width in (3, 1):
            where = f"on src {size(src)} with beam_size={width}"
            ids, log_probs = keeps_the_model(fn, model, src, beam_size=width, **options)
            well_formed(ids, model, where)
            log_probs_are_true(model, src, ids, log_probs, where)
        beam_finds_the_best(fn, tree, device)
        greedy = greedy_by_hand(model, src, 10)
        expect(ids.equal(greedy), f"{where} it finds other translations than greedy search")
    refuses(fn, model, src, beam_size=0, what="beam_size=0")


def beam_finds_the_best(fn: Callable, seed: int, device: torch.device | str) -> None:
    """Expect a beam as wide as the tree of two words and four steps to find the best sequence."""
    model = decoding_model(device, vocab_size=5, seed=seed)
    src = sources(5, device)
    for penalty in (0.0, 1.0):
        ids, _ = call(fn, model, src, beam_size=32, length_penalty=penalty, max_len=4)
        copies = ids.equal(greedy_by_hand(model, src, 4))
        where = f"with 2 words, max_len=4, beam_size=32 and length_penalty={penalty}"
        for row, want in zip(ids.tolist(), best_of_all(model, src, 4, penalty), strict=True):
            got = [i for i in row if i != model.config.pad_id]
            found = f"{where} it found {got}, best is {want}"
            cause = "That is greedy search: did all hypotheses start as the same one?"
            expect(got == want or not copies, f"{found}. {cause}")
            cause = "Are hypotheses that ended early kept and compared with the later ones?"
            expect(len(got) <= len(want), f"{found}. {cause}")
            cause = (
                "Is the score divided by length ** length_penalty, and does search go on after "
                "the first </s>?"
            )
            expect(len(got) >= len(want), f"{found}. {cause}")
            expect(got == want, found)


@check("seeded, by probability, temperature, top_k, model left as it was")
def check_sample(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (model, src, temperature, top_k, max_len, generator) giving ids b t."""
    model = decoding_model(device)
    src = sources(9, device)
    run = functools.partial(keeps_the_model, fn, model)

    def seeded(seed: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(seed)

    state = torch.get_rng_state()
    first, second = (run(src, max_len=8, generator=seeded(3)) for _ in range(2))
    well_formed(first, model, f"on src {size(src)}")
    cause = "Draw from the generator that was given"
    differ = f"two samples with the same seed differ: is dropout off? {cause}"
    expect(first.equal(second), differ)
    changed = f"the global random state was changed. {cause}"
    expect(torch.get_rng_state().equal(state), changed)
    draws_by_probability(run, model, src[:1], seeded)
    greedy = greedy_by_hand(model, src, 8)
    for options in (dict(top_k=1), dict(temperature=1e-4)):
        sampled = run(src, max_len=8, generator=seeded(5), **options)
        expect(sampled.equal(greedy), f"with {options} the sample must be the greedy translation")
    refuses(fn, model, src, temperature=0.0, what="temperature=0")


def draws_by_probability(run: Callable, model: Transformer, src: Tensor, seeded: Callable) -> None:
    """Expect tokens to be drawn as often as they are probable."""
    config = model.config
    many = repeat(src, "1 k -> b k", b=4000)
    with torch.no_grad():
        logits = model.eval()(src, src.new_tensor([[config.bos_id]]))[0, -1]
    logits[[config.pad_id, config.bos_id]] = -math.inf
    for temperature, top_k in ((1.0, None), (0.5, None), (2.0, None), (1.0, 2)):
        options = dict(temperature=temperature, top_k=top_k)
        drawn = run(many, max_len=1, generator=seeded(4), **options)[:, 0]
        frequencies = drawn.bincount(minlength=config.vocab_size) / len(drawn)
        frequencies_are_right(frequencies, logits, temperature, top_k)


def frequencies_are_right(
    frequencies: Tensor, logits: Tensor, temperature: float, top_k: int | None
) -> None:
    """Expect the frequencies of drawn tokens to be close to their probabilities."""
    kept = logits
    if top_k is not None:
        kept = logits.masked_fill(logits < logits.topk(top_k).values[-1], -math.inf)
    left = kept.isfinite()
    even = "All tokens that are left are equally likely: weigh them by softmax."
    suspects = {
        "The logits are multiplied by the temperature: divide.": lambda: (
            kept * temperature
        ).softmax(-1),
        "The temperature is ignored.": lambda: kept.softmax(-1),
        "top_k is ignored.": lambda: (logits / temperature).softmax(-1),
        even: lambda: left / left.sum(),
    }
    drawn = "frequencies of 4,000 first tokens"
    where = f"with temperature={temperature} and top_k={top_k}, {drawn}"
    agree(frequencies, (kept / temperature).softmax(-1), where, suspects, tolerance=0.04)


@check(
    "equal to the whole model at every step, hypotheses change places, sentences leave, nothing "
    "computed twice"
)
def check_incremental(decoder_class: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(model, src) with step(ids) and reorder(rows).

    `step` reads one more token in each row and gives the logits of the next. `reorder` takes the
    rows to continue with, b beam: the hypotheses of each sentence that has not ended.
    """
    model = small_model(device=device, norm="pre")
    src = torch.tensor(SRC, device=device)
    tgt = torch.randint(3, 11, (2, 6)).to(device)
    with torch.no_grad():
        decoder = call(decoder_class, model, src)
        want = model(src, tgt)
        for t in range(tgt.shape[1]):
            got = call(decoder.step, tgt[:, t])
            suspects = position_suspects(model, src, tgt[:, : t + 1])
            agree(got, want[:, t], f"step {t} of 6, logits", suspects, 2e-5)
        hypotheses_are_reordered(decoder_class, model, src)
        computes_nothing_twice(decoder_class, model, src, tgt)
        for stay in (0, 1):
            sentences_leave(decoder_class, model, src, stay)


@check("equal to the whole layer at every step in both norm placements, several hypotheses")
def check_decode_position(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (layer, x: (b n) 1 d, cache, src_mask) that gives (b n) 1 d."""
    src = torch.tensor(SRC, device=device)
    src_mask = keys(src != 0)
    past = only_past(4, device)
    forgotten = "The positions before are forgotten: attend to all that is in the cache."
    unmasked = "Cross-attention sees the source's padding: hand src_mask on."
    for norm in ("post", "pre"):
        model = small_model(device=device, norm=norm).requires_grad_(False)
        layer = model.decoder.layers[0]
        memory = model.encode(src)
        x = torch.randn(2, 4, 12).to(device)
        want = layer(x, memory, past, src_mask)
        alone = layer(x, memory, torch.eye(4, device=device) > 0, src_mask)
        wrong = {forgotten: alone, unmasked: layer(x, memory, past)}
        cache = KVCache(layer, memory)
        for t in range(4):
            suspects = {
                cause: functools.partial(torch.narrow, y, 1, t, 1) for cause, y in wrong.items()
            }
            got = call(fn, layer, x[:, t : t + 1], cache, src_mask)
            agree(got, want[:, t : t + 1], f"in {norm}-norm, position {t} of 4", suspects)
        x = torch.randn(6, 1, 12).to(device)
        rows, masks = (repeat(y, "b ... -> (b n) ...", n=3) for y in (memory, src_mask))
        got = call(fn, layer, x, KVCache(layer, memory), src_mask)
        agree(got, layer(x, rows, None, masks), "3 hypotheses for each of 2 sentences")
