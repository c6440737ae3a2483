"""What chapter 12 says of search in batches of many sentences, of defaults, engines and files."""

import logging
import threading
import time

import pytest
import torch
from torch import Tensor

from transformer.checks import LIVELY, decoding_model, greedy_by_hand, small_model
from transformer.data import pad, train_tokenizer
from transformer.export import CTranslate2Engine
from transformer.inference import (
    IncrementalDecoder,
    TorchEngine,
    Translator,
    beam_search,
    greedy_search,
    sample,
    scores,
    spread,
)
from transformer.model import Transformer, save_model

TEXTS = ["the cat is on the mat", "il gatto è sul tappeto"] * 3


@pytest.fixture(params=LIVELY, ids=lambda seed: f"model {seed}")
def model(request) -> Transformer:
    return decoding_model("cpu", seed=request.param).eval()


@pytest.fixture
def many() -> Tensor:
    """Twenty sources of different lengths, whose translations end at different times."""
    return torch.randint(3, 9, (20, 6)).masked_fill(torch.arange(6) > torch.randint(6, (20, 1)), 0)


@pytest.fixture
def steps() -> list[int]:
    """The number of rows in each step of the decoder `counting`."""
    return []


@pytest.fixture
def counting(steps) -> type:
    class Counting(IncrementalDecoder):
        def step(self, ids: Tensor) -> Tensor:
            steps.append(len(ids))
            return super().step(ids)

    return Counting


# --- search ----------------------------------------------------------------------------------------------------------


def beam_by_hand(model: Transformer, src: Tensor, n: int, penalty: float, max_len: int) -> list[int]:
    """Return what beam search finds for one source: lists in place of tensors, and no cache."""
    bos, eos, padding = model.config.bos_id, model.config.eos_id, model.config.pad_id
    alive, finished = [(0.0, [bos])], []
    for t in range(1, max_len + 1):
        tgt = torch.tensor([ids for _, ids in alive])
        log_probs = model(src.expand(len(alive), -1), tgt)[:, -1].log_softmax(-1).tolist()
        longer = [
            (score + log_prob, [*ids, i])
            for (score, ids), row in zip(alive, log_probs, strict=True)
            for i, log_prob in enumerate(row)
            if i not in (bos, padding)
        ]
        best = sorted(longer, reverse=True)[: 2 * n]
        finished += [(score / t**penalty, ids) for score, ids in best[:n] if ids[-1] == eos or t == max_len]
        if len(finished) >= n:
            break
        alive = [(score, ids) for score, ids in best if ids[-1] != eos][:n]
    return max(finished)[1][1:]


@pytest.mark.parametrize(("width", "penalty", "max_len"), [(1, 1.0, 12), (2, 0.0, 12), (3, 1.0, 12), (4, 2.0, 5)])
def test_every_sentence_of_a_batch_gets_the_beam_search_of_the_book(model, many, width, penalty, max_len) -> None:
    ids, _ = beam_search(model, many, width, penalty, max_len)
    with torch.no_grad():
        want = [beam_by_hand(model, src[src != 0].unsqueeze(0), width, penalty, max_len) for src in many]
    assert [[i for i in row if i] for row in ids.tolist()] == want
    short = [i for i, row in enumerate(want) if len(row) < max_len]
    longest = max(len(want[i]) for i in short)
    assert beam_search(model, many[short], width, penalty, max_len)[0].shape[1] == longest < max_len, "no wider"


def test_greedy_search_in_a_batch_of_many(model, many) -> None:
    ids = greedy_search(model, many, 23)
    assert ids.equal(greedy_by_hand(model, many, 23))
    lengths = (ids != 0).sum(1)
    short = greedy_search(model, many[lengths < 20], 23)
    assert short.equal(greedy_by_hand(model, many[lengths < 20], 23))
    assert len(short) > 8 and short.shape[1] < 20, "no wider than the longest"


@pytest.mark.parametrize("search", [greedy_search, lambda *args: beam_search(args[0], args[1], 1, 1.0, *args[2:])[0]])
def test_sentences_that_have_ended_leave_as_soon_as_they_are_a_quarter(model, many, counting, steps, search) -> None:
    lengths = (greedy_search(model, many, 12) != 0).sum(1)
    first, *_, third, second, last = lengths.argsort().tolist()
    end, next_end = int(lengths[first]), int(lengths[third])
    assert end < next_end
    four, five = [first, third, second, last], [first, third, second, last, last]
    search(model, many[four], 12, counting)
    assert steps[:next_end] == [4] * end + [3] * (next_end - end)
    steps.clear()
    search(model, many[five], 12, counting)
    assert steps[:next_end] == [5] * next_end, "a fifth waits"


@pytest.mark.parametrize(
    "search", [greedy_search, sample, lambda *args: beam_search(*args)[0]], ids=["greedy", "sample", "beam"]
)
def test_a_translation_that_does_not_end_is_cut_off_after_64_tokens(search) -> None:
    model = small_model(max_len=80)
    with torch.no_grad():
        model.bias[model.config.eos_id] = -1e4
    assert search(model, torch.tensor([[4, 5, 2]])).shape == (1, 64)


def test_five_hypotheses_and_the_score_of_a_token_are_the_default(model, many, counting, steps) -> None:
    ids, log_probs = beam_search(model, many, decoder=counting)
    assert steps[:2] == [len(many), 5 * len(many)], "a beam begins with <s> alone"
    assert ids.equal(beam_search(model, many, 5, length_penalty=1.0)[0])
    others = [beam_search(model, many, 5, penalty) for penalty in (0.0, 2.0)]
    assert not any(log_probs.equal(other) for _, other in others)


def test_the_models_own_probabilities_are_the_default_in_sampling(model, many, counting, steps) -> None:
    one, two = (torch.Generator().manual_seed(0) for _ in range(2))
    drawn = sample(model, many, max_len=9, generator=one, decoder=counting)
    assert drawn.equal(sample(model, many, 1.0, max_len=9, generator=two))
    assert steps[0] == len(many)


# --- engines ---------------------------------------------------------------------------------------------------------


def test_two_workers_work_at_once() -> None:
    both = threading.Barrier(2)
    assert sorted(spread(lambda group: both.wait(timeout=9), range(2), workers=2)) == [0, 1]


def test_workers_are_kept_for_the_next_time() -> None:
    both = threading.Barrier(2)

    def work(group: int) -> threading.Thread:
        both.wait(timeout=9)  # so that neither does it all
        return threading.current_thread()

    first, second = (set(spread(work, range(2), workers=2)) for _ in range(2))
    assert first == second and len(first) == 2


def test_no_more_work_at_once_than_there_are_workers_and_none_when_nobody_waits_for_it() -> None:
    at_work, most, begun = set(), 0, []

    def work(group: int) -> None:
        nonlocal most
        begun.append(group)
        at_work.add(group)
        most = max(most, len(at_work))
        time.sleep(0.01)
        at_work.remove(group)

    results = spread(work, range(40), workers=2)
    next(results)
    results.close()
    assert most <= 2
    assert len(begun) < 40


def test_on_a_cpu_groups_are_spread_over_the_threads() -> None:
    model, both, threads = small_model(), threading.Barrier(2), torch.get_num_threads()
    engine = TorchEngine(model)

    def decoder(model: Transformer, src: Tensor) -> IncrementalDecoder:
        both.wait(timeout=9)
        return IncrementalDecoder(model, src)

    engine.decoder = decoder
    torch.set_num_threads(2)
    try:
        for width in (1, 2):
            assert len(list(engine.search_all([([[4, 2]], 9), ([[5, 2]], 9)], width))) == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("width", [1, 3])
def test_an_engine_pads_with_the_models_own_padding(width: int) -> None:
    engine, seen = TorchEngine(small_model(pad_id=3)), []

    def decoder(model: Transformer, src: Tensor) -> IncrementalDecoder:
        seen.append(src.tolist())
        return IncrementalDecoder(model, src)

    engine.decoder = decoder
    next(engine.search_all([([[4, 5, 6, 2], [7, 2]], 9)], width))
    assert seen == [[[4, 5, 6, 2], [7, 2, 3, 3]]]


@pytest.fixture
def translator() -> Translator:
    tokenizer = train_tokenizer(TEXTS, 40)
    return Translator(small_model(vocab_size=tokenizer.get_vocab_size(), max_len=24), tokenizer)


class Echo(TorchEngine):
    """An engine that answers with its sources, but for some that it loses."""

    def __init__(self, groups_lost: int = 0, rows_lost: int = 0):
        self.groups_lost, self.rows_lost, self.asked = groups_lost, rows_lost, []

    def search_all(self, groups, beam_size: int = 5, length_penalty: float = 1.0):
        self.asked.append(([max_len for _, max_len in groups], beam_size, length_penalty))
        yield from [rows[self.rows_lost :] for rows, _ in groups[self.groups_lost :]]


def test_a_translator_asks_the_engine_that_it_is_given(translator) -> None:
    echo = Echo()
    texts = ["the cat", " ".join(["the cat"] * 9), "mat"]
    echoing = Translator(translator.model, translator.tokenizer, echo)
    assert echoing.translate(texts) == echoing.translate(texts, beam_size=2, length_penalty=0.6) == texts
    assert echo.asked == [([64, 32], 5, 1.0), ([64, 32], 2, 0.6)]


@pytest.mark.parametrize("lost", [{"groups_lost": 1}, {"rows_lost": 1}], ids=str)
def test_an_engine_that_loses_a_sentence_is_noticed(translator, lost: dict) -> None:
    lossy = Translator(translator.model, translator.tokenizer, Echo(**lost))
    with pytest.raises(ValueError, match="shorter"):
        lossy.translate(["the cat", "the mat"])


def test_the_bar_counts_the_groups(translator, capsys) -> None:
    translator.translate(["the cat", "the mat"], max_tokens=5, progress=True)
    shown = capsys.readouterr().err
    assert "\rtranslating: 100%" in shown and "2/2" in shown


def test_one_string_is_refused_with_advice(translator) -> None:
    with pytest.raises(ValueError, match=r"^translate takes a list of sentences, not one string$"):
        translator.translate("the cat")


# --- files and scores ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(translator, tmp_path):
    save_model(translator.model, tmp_path)
    (tmp_path / "tokenizer.json").write_text(translator.tokenizer.to_str(), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("options", "dtype"), [({}, torch.float32), ({"precision": "bf16"}, torch.bfloat16)], ids=str)
def test_a_translator_is_as_precise_as_asked(saved, options: dict, dtype: torch.dtype) -> None:
    loaded = Translator.load(saved, **options)
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    assert isinstance(loaded.translate(["the cat"])[0], str)


@pytest.mark.parametrize(("precision", "kind"), [("fp32", "float32"), ("int8", "int8")])
def test_another_engine_says_the_same_as_precisely_as_asked(saved, precision: str, kind: str) -> None:
    pytest.importorskip("ctranslate2")
    texts = ["the cat", "il gatto è sul tappeto"]
    loaded = Translator.load(saved, engine="ctranslate2", precision=precision)
    assert isinstance(loaded.engine, CTranslate2Engine)
    assert loaded.engine.translator.compute_type.startswith(kind)
    assert (saved / "ctranslate2").is_dir()
    if precision == "fp32":
        assert loaded.translate(texts) == Translator.load(saved).translate(texts)


def test_an_engine_hands_on_what_the_search_is_told(model, many) -> None:
    engine, rows = TorchEngine(model), [row[row != 0].tolist() for row in many]
    for width, penalty, max_len in ((1, 1.0, 6), (2, 0.0, 12), (5, 1.0, 12)):
        (found,) = engine.search_all([(rows, max_len)], width, penalty)
        assert pad(found).equal(beam_search(model, many, width, penalty, max_len)[0]), "in however many pieces"
    assert [found] == list(engine.search_all([(rows, 12)])), "five hypotheses and the score of a token are the default"


@pytest.mark.parametrize(("engine", "precision"), [("torch", "int8"), ("tensorflow", "fp32")])
def test_an_engine_or_a_precision_that_there_is_not_is_named(saved, engine: str, precision: str) -> None:
    with pytest.raises(ValueError, match=f"torch .* fp32 and bf16, .*: not {engine} {precision}$"):
        Translator.load(saved, engine=engine, precision=precision)


def test_an_end_that_somebody_types_is_text(saved) -> None:
    tokenizer = Translator.load(saved).tokenizer
    assert tokenizer.token_to_id("</s>") not in tokenizer.encode("the </s> cat").ids


def test_a_tokenizer_of_another_size_is_named_with_both_sizes(translator, saved) -> None:
    other = train_tokenizer(TEXTS, 30)
    (saved / "tokenizer.json").write_text(other.to_str(), encoding="utf-8")
    sizes = f"has {other.get_vocab_size()} entries and the model {translator.model.config.vocab_size}:"
    with pytest.raises(ValueError, match=sizes):
        Translator.load(saved)


@pytest.mark.parametrize(("tokenize", "warned"), [("13a", True), ("none", False)])
def test_only_text_that_should_not_be_tokenized_is_suspected_of_it(caplog, tokenize: str, warned: bool) -> None:
    text = ["the cat is on the mat ."] * 100
    with caplog.at_level(logging.WARNING):
        scores(text, text, tokenize)
    assert ("tokenized period" in caplog.text) == warned
