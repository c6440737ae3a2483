"""Published weights in the course's blocks: parity with `transformers`, files, and refusals."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers", reason="an extra of the tests")
pytest.importorskip("sentencepiece", reason="an extra of the tests")

import published_models as made
from published_models import SENTENCES

from transformer.checks.plain_marian import plain
from transformer.cli import main
from transformer.inference import IncrementalDecoder, RecomputingDecoder, beam_search, greedy_search
from transformer.pretrained import (
    PublishedConfig,
    PublishedTransformer,
    fairseq_positions,
    half_positions,
    load_pretrained,
    read_model,
    save_pretrained,
)
from transformer.published import read_rules, ruled, search_rows
from transformer.published.tokens import read_tokenizer
from transformer.translator import PublishedTranslator, Translator

SEPARATE = dict(
    vocab_size=40,
    decoder_vocab_size=30,
    share_encoder_decoder_embeddings=False,
    activation_function="gelu",
    scale_embedding=False,
)
KINDS: dict[str, tuple[Callable, dict[str, Any], dict[str, Any]]] = {
    "marian": (made.marian, {}, {}),
    "marian-relu-stop": (
        made.marian,
        {"activation_function": "relu", "eos_token_id": 5},
        {"early_stopping": True, "length_penalty": 0.6, "forced_eos_token_id": 5},
    ),
    "marian-renormalized": (made.marian, {}, {"renormalize_logits": True, "length_penalty": 0.0}),
    "marian-separate": (made.marian, SEPARATE, {}),
    "marian-two": (made.marian, SEPARATE | {"activation_function": "swish"}, {}),
    "fsmt": (made.fsmt, {}, {"length_penalty": 1.15}),
    "fsmt-tied": (made.fsmt, {"tgt_vocab_size": 40, "tie_word_embeddings": True}, {}),
    "m2m100": (made.m2m100, {}, {"forced_bos_token_id": 7, "early_stopping": True}),
    "m2m100-no-scale": (made.m2m100, {"scale_embedding": False}, {}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """Return a function that gives the model of a kind and the folder it was saved to."""
    kept: dict[str, tuple[Any, Path]] = {}

    def of(kind: str) -> tuple[Any, Path]:
        if kind not in kept:
            torch.manual_seed(0)
            make, sizes, rules = KINDS[kind]
            model = make(**sizes)
            model.generation_config.update(**rules)
            folder = tmp_path_factory.mktemp(kind)
            model.save_pretrained(folder)
            kept[kind] = (model, folder)
        return kept[kind]

    return of


# --- parity ---------------------------------------------------------------------------------------


@each_kind
@torch.no_grad()
def test_states_and_logits_equal_those_of_transformers(kind: str, checkpoint: Callable) -> None:
    theirs, folder = checkpoint(kind)
    ours = read_model(folder)
    src, real, tgt = made.batch(theirs)
    want = theirs(input_ids=src, attention_mask=real.long(), decoder_input_ids=tgt, use_cache=False)
    memory = ours.encode(src)
    assert (memory - want.encoder_last_hidden_state)[real].abs().max() < 1e-5
    torch.testing.assert_close(ours.decode(tgt, memory, src), want.logits, atol=1e-5, rtol=1e-5)
    assert want.logits.std() > 1


@pytest.mark.parametrize("kind", ["marian", "marian-relu-stop", "marian-two"])
@torch.no_grad()
def test_the_plain_model_of_the_checks_equals_transformers(kind: str, checkpoint: Callable) -> None:
    """Otherwise the checks of chapter 13 would compare with what the course believes."""
    theirs, folder = checkpoint(kind)
    config = read_model(folder).config
    src, real, tgt = made.batch(theirs)
    want = theirs(input_ids=src, attention_mask=real.long(), decoder_input_ids=tgt, use_cache=False)
    ours = plain(load_file(folder / "model.safetensors"), config)
    assert (ours.memory(src) - want.encoder_last_hidden_state)[real].abs().max() < 1e-5
    torch.testing.assert_close(ours.logits(tgt, src), want.logits, atol=1e-5, rtol=1e-5)


def generated(model: Any, beam_size: int, max_len: int) -> tuple[list[list[int]], list[float]]:
    """Return what `generate` finds for 200 padded sentences, and its scores."""
    src, real, _ = made.batch(model)
    found = model.generate(
        input_ids=src,
        attention_mask=real.long(),
        num_beams=beam_size,
        max_new_tokens=max_len,
        return_dict_in_generate=True,
        output_scores=True,
    )
    pad_id = model.config.pad_token_id
    rows = [[i for i in row if i != pad_id] for row in found.sequences[:, 1:].tolist()]
    return rows, found.sequences_scores.tolist() if beam_size > 1 else []


@each_kind
@pytest.mark.parametrize("beam_size", [1, 5])
def test_search_equals_generate(kind: str, beam_size: int, checkpoint: Callable) -> None:
    theirs, folder = checkpoint(kind)
    torch.manual_seed(1)
    want, scores = generated(theirs, beam_size, 12)
    torch.manual_seed(1)
    src, _, _ = made.batch(theirs)
    rules = replace(read_rules(folder), beam_size=beam_size, max_len=12)
    found = search_rows(read_model(folder), src, rules)
    assert [ids for (ids, _), *_ in found] == want
    if kind.startswith("marian-re") or kind == "marian":
        assert len(set(map(len, want))) > 3, "the sentences end at different lengths"
    if scores:
        got = torch.tensor([score for (_, score), *_ in found])
        torch.testing.assert_close(got, torch.tensor(scores), atol=1e-5, rtol=1e-5)


def test_each_rule_of_search_matters(checkpoint: Callable) -> None:
    theirs, folder = checkpoint("marian")
    model = read_model(folder)
    src, _, _ = made.batch(theirs, sentences=40)
    rules = replace(read_rules(folder), beam_size=5, max_len=12)
    plain = search_rows(model, src, rules)
    for change in (
        {"early_stopping": True},
        {"length_penalty": 0.2},
        {"first_id": 7},
        {"last_id": 5},
        {"renormalize": True},
        {"max_len": 3},
    ):
        assert search_rows(model, src, replace(rules, **change)) != plain, change


def test_the_course_searches_run_on_it(checkpoint: Callable) -> None:
    theirs, folder = checkpoint("marian")
    model = read_model(folder)
    src, _, _ = made.batch(theirs, sentences=9)
    ids, log_probs = beam_search(model, src, beam_size=3, max_len=9)
    assert ids.shape[0] == 9 and log_probs.isfinite().all()
    cached = greedy_search(model, src, 9, IncrementalDecoder)
    assert cached.equal(greedy_search(model, src, 9, RecomputingDecoder))
    first = greedy_search(model, src, 9, ruled(replace(read_rules(folder), first_id=7)))
    assert (first[:, 0] == 7).all()


# --- round trips ----------------------------------------------------------------------------------


@each_kind
def test_what_is_written_is_bit_for_bit_what_was_read(
    kind: str, checkpoint: Callable, tmp_path: Path
) -> None:
    _, folder = checkpoint(kind)
    model = read_model(folder)
    out = save_pretrained(model, tmp_path / "out", like=folder)
    before = load_file(folder / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].equal(tensor), name
    again = read_model(out)
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert again.state_dict()[name].equal(tensor), name


@each_kind
@torch.no_grad()
def test_transformers_reads_what_is_written(
    kind: str, checkpoint: Callable, tmp_path: Path
) -> None:
    theirs, folder = checkpoint(kind)
    out = save_pretrained(read_model(folder), tmp_path / "out")
    again = type(theirs).from_pretrained(out)
    src, real, tgt = made.batch(theirs, sentences=8)
    given = dict(input_ids=src, attention_mask=real.long(), decoder_input_ids=tgt, use_cache=False)
    assert again(**given).logits.equal(theirs(**given).logits)


def test_half_precision_is_read_as_float32(checkpoint: Callable, tmp_path: Path) -> None:
    _, folder = checkpoint("marian")
    shutil.copytree(folder, tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    save_file({n: x.half() for n, x in weights.items()}, tmp_path / "half" / "model.safetensors")
    model = read_model(tmp_path / "half")
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.embedding.weight.equal(weights["model.shared.weight"].half().float())


def test_weights_in_several_files_are_read(checkpoint: Callable, tmp_path: Path) -> None:
    theirs, folder = checkpoint("marian")
    theirs.save_pretrained(tmp_path, max_shard_size="8KB")
    assert not (tmp_path / "model.safetensors").exists()
    one = read_model(folder).state_dict()
    assert all(x.equal(one[name]) for name, x in read_model(tmp_path).state_dict().items())


def test_a_copy_of_the_table_may_stand_for_it(checkpoint: Callable, tmp_path: Path) -> None:
    _, folder = checkpoint("marian")
    rewrite(folder, tmp_path, lambda w: w | {"lm_head.weight": w.pop("model.shared.weight")})
    assert read_model(tmp_path).embedding.weight.equal(read_model(folder).embedding.weight)


def test_positions_of_the_file_are_used(checkpoint: Callable, tmp_path: Path) -> None:
    _, folder = checkpoint("marian")
    table = torch.randn(40, 16)
    rows = {
        f"model.{side}.embed_positions.weight": table.clone() for side in ("encoder", "decoder")
    }
    rewrite(folder, tmp_path, lambda w: w | rows)
    model = read_model(tmp_path)
    assert model.positions.table.equal(table)
    out = save_pretrained(model, tmp_path / "out")
    assert read_model(out).positions.table.equal(table)


def test_positions_of_both_families() -> None:
    halves = half_positions(50, 16)
    fairseq = fairseq_positions(50, 16)
    for column in (0, 8):
        torch.testing.assert_close(halves[:, column], fairseq[:, column], atol=1e-5, rtol=0)
    assert (halves - fairseq).abs().max() > 0.05
    assert fairseq_positions(48, 16, first=2).equal(fairseq[2:50])
    slowest = math.sin(49 / 10_000)
    assert abs(fairseq[49, 7].item() - slowest) < 1e-6


# --- refusals -------------------------------------------------------------------------------------


def rewrite(folder: Path, out: Path, change: Callable[[dict], dict]) -> Path:
    """Copy a checkpoint, with other weights."""
    out.mkdir(exist_ok=True)
    for path in folder.iterdir():
        shutil.copy(path, out)
    weights = change(load_file(folder / "model.safetensors"))
    save_file({name: x.contiguous() for name, x in weights.items()}, out / "model.safetensors")
    return out


def reconfigure(folder: Path, out: Path, **changes: Any) -> Path:
    """Copy a checkpoint, with another config.json."""
    shutil.copytree(folder, out)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    kept = {name: value for name, value in settings.items() if value is not ...}
    (out / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    return out


FC1 = "model.encoder.layers.0.fc1.weight"
WRONG_WEIGHTS: dict[str, tuple[Callable[[dict], dict], str]] = {
    "missing": (lambda w: {n: x for n, x in w.items() if n != FC1}, f"missing: {FC1}"),
    "unexpected": (lambda w: w | {"extra": torch.zeros(1)}, "unexpected: extra"),
    "shape": (lambda w: w | {FC1: w[FC1].T}, rf"{FC1} is \(16, 32\), not \(32, 16\)"),
    "integers": (lambda w: w | {FC1: w[FC1].int()}, f"{FC1} is I32, not floating-point"),
    "two tables": (
        lambda w: w | {"lm_head.weight": w["model.shared.weight"] + 1},
        "must be one table, but differ",
    ),
    "positions": (
        lambda w: w | {"model.encoder.embed_positions.weight": torch.zeros(5, 16)},
        "40 rows of 16",
    ),
}
WRONG_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"model_type": "bart"}, "another architecture: model_type 'bart'"),
    "no architecture": ({"model_type": ...}, "another architecture: model_type None"),
    "activation": ({"activation_function": "tanh"}, "activation_function is 'tanh'"),
    "norm": ({"normalize_before": True}, "normalize_before=True is not supported"),
    "missing": ({"d_model": ...}, "no setting 'd_model'"),
    "heads": ({"decoder_attention_heads": 3}, "must be divisible by n_heads=3"),
    "pad": ({"pad_token_id": 40}, "pad_id must be an id below 40, not 40"),
    "eos": ({"eos_token_id": [0, 1]}, "eos_token_id must be one id"),
    "layers": ({"encoder_layers": 3}, r"missing: model.encoder.layers.2\S+, \S+, \S+ and 13 more"),
    "untied": ({"tie_word_embeddings": False}, "output layer of its own"),
}


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_wrong_weights_are_refused(case: str, checkpoint: Callable, tmp_path: Path) -> None:
    change, message = WRONG_WEIGHTS[case]
    folder = rewrite(checkpoint("marian")[1], tmp_path, change)
    with pytest.raises(ValueError, match=message) as caught:
        read_model(folder)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("case", WRONG_CONFIGS)
def test_wrong_configs_are_refused(case: str, checkpoint: Callable, tmp_path: Path) -> None:
    changes, message = WRONG_CONFIGS[case]
    with pytest.raises(ValueError, match=message) as caught:
        read_model(reconfigure(checkpoint("marian")[1], tmp_path / "new", **changes))
    assert "\n" not in str(caught.value)


def test_pickles_are_refused_with_advice(checkpoint: Callable, tmp_path: Path) -> None:
    folder = reconfigure(checkpoint("marian")[1], tmp_path / "new")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin only, a pickle.*save_pretrained"):
        read_model(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        read_model(folder)


def test_a_damaged_file_is_refused(checkpoint: Callable, tmp_path: Path) -> None:
    folder = reconfigure(checkpoint("marian")[1], tmp_path / "new")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        read_model(folder)
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is not JSON"):
        read_model(folder)


def test_a_rule_that_the_search_lacks_is_refused(checkpoint: Callable, tmp_path: Path) -> None:
    folder = reconfigure(checkpoint("marian")[1], tmp_path / "new")
    path = folder / "generation_config.json"
    rules = json.loads(path.read_text(encoding="utf-8"))
    for change in ({"no_repeat_ngram_size": 3}, {"bad_words_ids": [[1, 2]]}):
        path.write_text(json.dumps(rules | change), encoding="utf-8")
        with pytest.raises(ValueError, match=next(iter(change))):
            read_rules(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "tanh"},
        {"positions": "learned"},
        {"tables": "four"},
        {"family": "bart"},
        {"encoder_heads": 3},
        {"source_vocab_size": 0},
        {"bos_id": 40},
        {"norm": "middle"},
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        small_config(**changes)


def small_config(**changes: Any) -> PublishedConfig:
    sizes = dict(d_model=16, n_heads=4, n_layers=1, d_ff=32, max_len=40)
    encoder = dict(source_vocab_size=40, encoder_layers=1, encoder_heads=2, encoder_d_ff=32)
    special = dict(pad_id=39, bos_id=39, eos_id=0)
    return PublishedConfig(40, **sizes | encoder | special | changes)


def test_ids_outside_the_vocabulary_are_named() -> None:
    model = PublishedTransformer(small_config())
    with pytest.raises(ValueError, match="source ids must be from 0 to 39, not 40"):
        model.encode(torch.tensor([[40]]))


# --- tokens and translators -----------------------------------------------------------------------


TEXTS = [
    *SENTENCES,
    ">>ita<< there is a dog",
    ">>xxx<< an unknown tag",
    "a Ω that no piece covers",
    "  two   spaces ",
    "cat",
]


@pytest.fixture(scope="module")
def marian_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A Marian model with its tokenizer, and the folder it is in."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("opus-mt-en-xx")
    size = made.write_marian_tokens(folder)
    model = made.marian(vocab_size=size)
    model.save_pretrained(folder)
    return model, folder


def test_marian_tokens_equal_those_of_transformers(marian_folder: tuple[Any, Path]) -> None:
    from transformers import MarianTokenizer

    _, folder = marian_folder
    theirs = MarianTokenizer.from_pretrained(folder)
    ours = read_tokenizer(folder, "marian")
    rows = ours.encode(TEXTS)
    assert rows == theirs(TEXTS).input_ids
    assert ours.encode_targets(SENTENCES) == theirs(text_target=SENTENCES).input_ids
    assert ours.decode(rows[:6]) == theirs.batch_decode(rows[:6], skip_special_tokens=True)
    assert ours.unknown in rows[2] and rows[6][0] == ours.vocabulary[">>ita<<"]
    assert [ours.knows(row) for row in ours.encode(["Ω", ">>ita<<", "", "the"])] == [0, 0, 0, 1]


def test_separate_vocabularies_of_marian(tmp_path: Path) -> None:
    from transformers import MarianTokenizer

    made.write_marian_tokens(tmp_path, separate=True)
    theirs = MarianTokenizer.from_pretrained(tmp_path)
    ours = read_tokenizer(tmp_path, "marian")
    rows = ours.encode_targets(SENTENCES)
    assert rows == theirs(text_target=SENTENCES).input_ids
    assert ours.decode(rows) == theirs.batch_decode(rows, skip_special_tokens=True)


def test_m2m100_tokens_equal_those_of_transformers(tmp_path: Path) -> None:
    from transformers import M2M100Tokenizer

    made.write_m2m100_tokens(tmp_path)
    saved = M2M100Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "sentencepiece.bpe.model"))
    saved.save_pretrained(tmp_path)
    theirs = M2M100Tokenizer.from_pretrained(tmp_path, src_lang="en", tgt_lang="it")
    ours = read_tokenizer(tmp_path, "m2m_100", ("en", "it"))
    rows = ours.encode(SENTENCES)
    assert rows == theirs(SENTENCES).input_ids
    assert ours.first_id == theirs.get_lang_id("it")
    assert ours.encode_targets(SENTENCES) == theirs(text_target=SENTENCES).input_ids
    assert ours.decode(rows) == theirs.batch_decode([r[1:] for r in rows], skip_special_tokens=True)
    with pytest.raises(ValueError, match="no language 'xx'"):
        read_tokenizer(tmp_path, "m2m_100", ("en", "xx"))
    with pytest.raises(ValueError, match="name the source and the target"):
        read_tokenizer(tmp_path, "m2m_100")


def test_nllb_tokens_equal_those_of_transformers(tmp_path: Path) -> None:
    from transformers import NllbTokenizer

    letters = sorted({c for text in SENTENCES for c in text if c != " "} | {"▁"})
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("a", "t")]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(a + b for a, b in merges)]
    vocab = {token: i for i, token in enumerate(tokens)}
    NllbTokenizer(vocab=vocab, merges=merges).save_pretrained(tmp_path)
    theirs = NllbTokenizer.from_pretrained(tmp_path, src_lang="eng_Latn", tgt_lang="ita_Latn")
    ours = read_tokenizer(tmp_path, "m2m_100", ("eng_Latn", "ita_Latn"))
    rows = ours.encode(SENTENCES)
    assert rows == theirs(SENTENCES).input_ids
    assert ours.encode_targets(SENTENCES) == theirs(text_target=SENTENCES).input_ids
    assert ours.decode(rows) == theirs.batch_decode(rows, skip_special_tokens=True)


def test_fsmt_tokens_equal_those_of_transformers(tmp_path: Path) -> None:
    from transformers import FSMTTokenizer

    made.write_fsmt_tokens(tmp_path)
    theirs = FSMTTokenizer.from_pretrained(tmp_path)
    ours = read_tokenizer(tmp_path, "fsmt")
    texts = [
        *SENTENCES,
        "the “cat” … １２ sees; that’s—and（it）、on。 the mat",
        "well-known\u200b x",
    ]
    rows = ours.encode(texts)
    assert rows == theirs(texts).input_ids
    short = [[i for i in row if i < ours.sizes[1]] for row in rows]
    assert ours.decode(short) == theirs.batch_decode(short, skip_special_tokens=True)


def test_a_translator_of_a_folder_equals_generate(marian_folder: tuple[Any, Path]) -> None:
    from transformers import MarianTokenizer

    theirs, folder = marian_folder
    tokenizer = MarianTokenizer.from_pretrained(folder)
    texts = [text for text in TEXTS if text != "cat" and "  " not in text]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    ids = theirs.generate(**inputs, num_beams=5, max_length=41)
    want = [" ".join(t.split()) for t in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    translator = Translator.load(folder)
    assert isinstance(translator, PublishedTranslator)
    assert translator.translate(texts) == want
    assert len(set(want)) > 2


def test_a_translator_reports_what_it_cannot_read(marian_folder: tuple[Any, Path]) -> None:
    translator = Translator.load(marian_folder[1])
    problems: list[tuple[int, str]] = []
    texts = ["", "ΩΩ", "the " * 100, "the cat"]
    found = translator.translate(texts, on_problem=lambda n, problem: problems.append((n, problem)))
    assert found[:3] == ["", "", ""]
    assert [number for number, _ in problems] == [1, 2, 3]
    with pytest.raises(ValueError, match="engine pytorch"):
        Translator.load(marian_folder[1], engine="ctranslate2")
    with pytest.raises(ValueError, match="takes no languages"):
        Translator.load(marian_folder[1], languages=("en", "it"))


def test_the_command_line_searches_as_the_checkpoint_says(
    marian_folder: tuple[Any, Path], tmp_path: Path, monkeypatch
) -> None:
    folder = shutil.copytree(marian_folder[1], tmp_path / "new")
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"num_beams": 3, "length_penalty": 0.6}))
    searches = []
    n_best = Translator.n_best

    def noted(self, texts, search, *arguments, **options):
        searches.append((search.beam_size, search.length_penalty))
        return n_best(self, texts, search, *arguments, **options)

    monkeypatch.setattr(PublishedTranslator, "n_best", noted)
    command = ["translate", "--model", str(folder), "--device", "cpu", "the cat"]
    assert main(command) == 0
    assert main([*command, "--beam", "2"]) == 0
    assert searches == [(3, 0.6), (2, 0.6)]


def test_what_published_weights_attend_to_is_not_written(
    marian_folder: tuple[Any, Path], tmp_path: Path, capsys
) -> None:
    test = tmp_path / "test"
    test.write_text("the cat\n", encoding="utf-8")
    command = ["evaluate", "--corpus", "files", "--test", str(test), str(test), "--device", "cpu"]
    attention = ["--attention", str(tmp_path / "attention.jsonl")]
    assert main([*command, "--model", str(marian_folder[1]), *attention]) == 1
    assert "--attention is for models that were trained here" in capsys.readouterr().err


def test_a_vocabulary_that_does_not_fit_is_refused(
    marian_folder: tuple[Any, Path], tmp_path: Path
) -> None:
    folder = reconfigure(marian_folder[1], tmp_path / "new")
    path = folder / "vocab.json"
    vocabulary = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(vocabulary | {"more": len(vocabulary)}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"source vocabulary .* do not belong together"):
        load_pretrained(folder)
    path.write_text(json.dumps(vocabulary | {"</s>": 3}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"</s> is 3 in the vocabulary"):
        load_pretrained(folder)


def test_a_name_of_the_hub_is_downloaded(
    marian_folder: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert not any("bin" in pattern for pattern in allow_patterns)
        return str(marian_folder[1])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model, tokenizer = load_pretrained("Helsinki-NLP/opus-mt-en-xx")
    assert tokenizer.sizes[1] == model.config.vocab_size
    assert Translator.load("Helsinki-NLP/opus-mt-en-xx").translate(["the dog"])
    assert set(asked) == {"Helsinki-NLP/opus-mt-en-xx"}


def test_without_a_network_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="the hub cannot be reached"):
        Translator.load("Helsinki-NLP/no-such-model-at-all")
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_pretrained("no-such-folder")


# --- time and memory ------------------------------------------------------------------------------

MEASURE = """
import sys, time
from pathlib import Path
from transformer.pretrained import read_model
def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kilobytes("VmRSS")
start = time.process_time()
model = read_model(sys.argv[1])
seconds = time.process_time() - start
size = 4 * sum(parameter.numel() for parameter in model.parameters()) / 1024
print(seconds, (kilobytes("VmHWM") - before) / size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_a_model_of_opus_size_loads_soon_and_in_little_memory(tmp_path: Path) -> None:
    sizes = dict(d_model=512, n_heads=8, n_layers=6, d_ff=2048, max_len=512, logits_bias=True)
    encoder = dict(source_vocab_size=58_101, encoder_layers=6, encoder_heads=8, encoder_d_ff=2048)
    special = dict(pad_id=58_100, bos_id=58_100, eos_id=0)
    model = PublishedTransformer(PublishedConfig(58_101, **sizes | encoder | special))
    path = save_pretrained(model, tmp_path / "opus") / "model.safetensors"
    save_file({name: x.half() for name, x in load_file(path).items()}, path)
    command = [sys.executable, "-c", MEASURE, str(path.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, share = map(float, done.stdout.split())
    assert seconds < 2, "CPU time, which other processes disturb least"
    assert share < 1.3
