"""Test recipes: the files, the options that replace their settings, and what a model remembers."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from test_cli import SMALL, complaint, files  # noqa: F401
from test_recipes import make_corpus, preset

from transformer.cli import main, parser
from transformer.cli.recipe_options import use_recipe
from transformer.cli.train_command import changed_preset
from transformer.corpora import text_files
from transformer.engines import Search
from transformer.recipes import Decoding, Techniques, fit, read_recipe, recipe_names, settings_of
from transformer.sampling import sample_translations
from transformer.translator import Translator

TEXT = """
corpus = "files"
[model]
vocab_size = 90
d_model = 16
n_heads = 2
n_layers = 1
d_ff = 16
dropout = 0
[training]
steps = 4
validate_every = 2
precision = "fp32"
[techniques]
simcut = 3
average_last = 2
[decoding]
beam_size = 3
length_penalty = 0.6
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


# --- the files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_is_one(name: str) -> None:
    found = read_recipe(name)
    assert found.name == name
    assert found.preset.model_config(10_000).d_model >= 128


@pytest.mark.parametrize("form", ["", "-tok"])
def test_the_two_directions_have_the_same_settings(form) -> None:
    one, other = read_recipe(f"multi30k-en-de{form}"), read_recipe(f"multi30k-de-en{form}")
    assert (one.preset, one.tokenized) == (other.preset, other.tokenized)
    assert (one.corpus, one.src, one.tgt) == ("multi30k", "en", "de")
    assert (other.corpus, other.src, other.tgt) == ("multi30k", "de", "en")


def test_tokens_of_papers_are_learned_with_the_same_settings(capsys) -> None:
    tokens, text = read_recipe("multi30k-en-de-tok"), read_recipe("multi30k-en-de")
    assert (tokens.tokenized, text.tokenized) == (True, False)
    assert replace(tokens, name=text.name, tokenized=False) == text
    for name in ("multi30k-en-de-tok", "multi30k-en-de"):
        options = train_options("--recipe", name)
        use_recipe(options)
        assert options.tok == (name == "multi30k-en-de-tok")
    assert capsys.readouterr().err == ""


def test_tokens_or_text_can_be_chosen_against_a_recipe_and_are_announced(capsys) -> None:
    for option, name in (("--tok", "multi30k-en-de"), ("--no-tok", "multi30k-en-de-tok")):
        options = train_options("--recipe", name, option)
        use_recipe(options)
        chosen = option == "--tok"
        assert options.tok == chosen
        assert capsys.readouterr().err == f"tok is {chosen}, not {not chosen} as in {name}\n"


def test_a_recipe_has_the_settings_of_its_file(recipe) -> None:
    found = read_recipe(recipe)
    assert (found.name, found.corpus, found.src, found.precision) == ("mine", "files", None, "fp32")
    assert found.preset.vocab_size == 90
    assert found.preset.techniques == Techniques(simcut=3.0, average_last=2)
    assert isinstance(found.preset.techniques.simcut, float)
    assert found.preset.decoding == Decoding(3, 0.6)
    assert found.preset.training.steps == 4
    assert found.preset.training.warmup == 1000, "what is left out has its default"
    assert settings_of(found.preset)["d_ff"] == 16


def test_a_recipe_starts_from_its_base(recipe, tmp_path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(f'base = "{recipe}"\n[training]\nsteps = 9\n')
    found = read_recipe(path).preset
    assert (found.training.steps, found.training.validate_every) == (9, 2)
    assert found.decoding.beam_size == 3
    recipe.write_text(f'base = "{path}"')
    with pytest.raises(ValueError, match="is its own base"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("corpus = ", "is not TOML"),
        ("tokenized = 1", "tokenized must be true or false, not 1"),
        ("colour = 1", "has no setting colour, only base"),
        ("[model]\nlayers = 1", r"\[model\] has no setting layers"),
        ("[models]\n", "has no setting models"),
        ("model = 3", r"model must be a section, \[model\]"),
        ("[model]\nn_heads = 3", "must be divisible by n_heads=3"),
        ("[training]\nsteps = 0", "steps must be above 0"),
        ('[training]\nsteps = "many"', "steps must be of type int, not 'many'"),
        ("[training]\nminutes = 0", "minutes must be above 0"),
        ("[techniques]\nsimcut = 1\nr_drop = 1", "one must be 0"),
        ("[decoding]\nbeam_size = 0", "beam_size must be at least 1"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(recipe, change: str, words: str) -> None:
    recipe.write_text(change)
    with pytest.raises(ValueError, match=words) as error:
        read_recipe(recipe)
    assert str(recipe) in str(error.value)


def test_a_recipe_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(FileNotFoundError, match="no recipe xx: give a path, or one of multi30k-de"):
        read_recipe("xx")


# --- the command line -----------------------------------------------------------------------------


def train_options(*arguments: str):
    return parser().parse_args(["train", *arguments])


def test_a_recipe_names_the_corpus_and_an_option_wins_and_is_announced(recipe, capsys) -> None:
    options = train_options("--recipe", "multi30k-en-de", "--tgt", "fr")
    use_recipe(options)
    assert (options.corpus, options.src, options.tgt) == ("multi30k", "en", "fr")
    assert capsys.readouterr().err == "tgt is fr, not de as in multi30k-en-de\n"
    options = train_options("--recipe", "multi30k-en-de", "--corpus", "en-it")
    use_recipe(options)
    assert (options.corpus, options.src, options.tgt) == ("en-it", None, None)
    assert "corpus is en-it, not multi30k" in capsys.readouterr().err
    options = train_options()
    assert use_recipe(options) is None
    assert options.corpus == "en-it"


def test_every_setting_of_a_recipe_is_an_option(recipe) -> None:
    known = vars(train_options())
    settings = set(settings_of(read_recipe(recipe).preset)) - {"pad_id", "bos_id", "eos_id"}
    assert settings - {"beam_size"} <= set(known)
    assert "beam" in known


def test_techniques_are_options(recipe) -> None:
    arguments = "--r-drop 5 --bpe-dropout 0.1 --both-directions 7 --average-last 3 --patience 4"
    arguments += " --cooldown 0.2 --muon 1.5 --word-dropout 0.2 --lexicon 0.5"
    options = train_options(*arguments.split(), "--beam", "8", "--length-penalty", "0.5")
    found = changed_preset(preset(), options)
    assert found.techniques == Techniques(
        r_drop=5.0,
        bpe_dropout=0.1,
        word_dropout=0.2,
        lexicon=0.5,
        both_directions=7,
        average_last=3,
        cooldown=0.2,
        muon=1.5,
        patience=4,
    )
    assert found.decoding == Decoding(8, 0.5)
    assert changed_preset(preset(), train_options("--min-count", "2")).techniques.min_count == 2


def test_a_run_by_a_recipe_announces_what_was_replaced(recipe, files, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "model"
    command = ["train", "--recipe", str(recipe), *files, "--out", str(out), "--device", "cpu"]
    assert main([*command, "--d-ff", "20", "--steps", "4", "--simcut", "0", "--r-drop", "2"]) == 0
    shown = capsys.readouterr().err
    assert "d-ff is 20, not 16 as in mine\n" in shown
    assert "simcut is 0.0, not 3.0 as in mine\nr-drop is 2.0, not 0.0 as in mine\n" in shown
    assert "steps is" not in shown
    assert json.loads((out / "decoding.json").read_text()) == asdict(Decoding(3, 0.6))
    assert Translator.load(out).search == Search(3, 0.6)
    assert " → " in shown, "samples are shown"


def test_a_missing_tensorboard_is_named_before_anything_is_written(
    files,  # noqa: F811
    tmp_path,
    capsys,
    monkeypatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    out = tmp_path / "model"
    command = ["train", *files, *SMALL, "--steps", "2", "--out", out, "--tensorboard"]
    assert "pip install tensorboard" in complaint(capsys, *command)
    assert not out.exists()


# --- what a model remembers -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    fit(make_corpus(), folder, replace(preset(steps=3), decoding=Decoding(2, 0.5)))
    return folder


@pytest.fixture
def test_set(tmp_path) -> list[str]:
    pairs = make_corpus().train[:6]
    for side, name in enumerate(("en", "it")):
        (tmp_path / name).write_text("".join(f"{pair[side]}\n" for pair in pairs))
    return ["--corpus", "files", "--test", str(tmp_path / "en"), str(tmp_path / "it")]


def test_a_translator_searches_as_its_model_says(model, monkeypatch) -> None:
    seen = []
    translator = Translator.load(model)
    monkeypatch.setattr(
        type(translator.engine), "search_all", lambda self, work, search: seen.append(search) or []
    )
    for call in (
        lambda: translator.translate([]),
        lambda: translator.n_best([]),
        lambda: translator.translate([], 4),
        lambda: translator.n_best([], Search(1)),
    ):
        call()
    assert seen == [Search(2, 0.5), Search(2, 0.5), Search(4, 0.5), Search(1)]


def test_a_damaged_decoding_is_named(model, tmp_path) -> None:
    (tmp_path / "decoding.json").write_text('{"beam": 5}')
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    with pytest.raises(ValueError, match=r"decoding\.json is damaged"):
        Translator.load(tmp_path)


def evaluated(capsys, *arguments: object) -> dict:
    assert main(["evaluate", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def test_evaluate_searches_as_the_model_says_unless_told_otherwise(model, test_set, capsys):
    plain = evaluated(capsys, *test_set, "--model", model)
    assert plain["search"] == "beam 2, length penalty 0.5"
    told = evaluated(capsys, *test_set, "--model", model, "--beam", 4, "--length-penalty", 1)
    assert told["search"] == "beam 4, length penalty 1"


@pytest.mark.parametrize("source", ["beam", "samples"])
def test_evaluate_by_minimum_risk(model, test_set, capsys, source: str) -> None:
    found = evaluated(capsys, *test_set, "--model", model, "--mbr", 4, "--mbr-from", source)
    assert found["search"].startswith("minimum risk of 4 ")
    assert found["sentences"] == 6


def test_samples_depend_on_their_seed_alone(model) -> None:
    translator = Translator.load(model)
    texts = [src for src, _ in make_corpus().val]
    one, again, other = (sample_translations(translator, texts, 5, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert [len(drawn) for drawn in one] == [5, 5, 5]
    assert sample_translations(translator, ["", texts[0]], 2)[0] == []


def test_evaluate_compares_with_another_systems_output(model, test_set, tmp_path, capsys) -> None:
    other = tmp_path / "other.txt"
    other.write_text((tmp_path / "it").read_text())
    found = evaluated(capsys, *test_set, "--model", model, "--against", other, "--moses", "it")
    against = found["against"][str(other)]
    assert against["BLEU"]["other"] == 100
    assert against["BLEU"]["score"] == found["BLEU"]
    assert against["moses"]["chrF"]["difference"] < 0
    other.write_text("too short\n")
    sentence = complaint(capsys, "evaluate", *test_set, "--model", model, "--against", other)
    assert "other.txt has 1 lines, and the test set 6 sentences" in sentence


def test_evaluate_of_several_seeds_has_mean_and_spread(model, test_set, capsys) -> None:
    found = evaluated(capsys, *test_set, "--model", model, "--also", model, "--moses", "it")
    assert list(found["models"]) == [str(model)]
    assert found["mean"]["chrF"] == found["models"][str(model)]["chrF"]
    assert found["spread"] == {"BLEU": 0.0, "chrF": 0.0, "moses BLEU": 0.0, "moses chrF": 0.0}


def test_evaluate_writes_what_each_translation_attends_to(model, test_set, tmp_path, capsys):
    out = tmp_path / "attention.jsonl"
    evaluated(capsys, *test_set, "--model", model, "--attention", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 6, "line n belongs to sentence n"
    for row in rows:
        assert all(len(matrix) == len(row["target"]) for matrix in row["weights"])


# --- data diversification -------------------------------------------------------------------------


def test_diversify_writes_further_pairs_that_train_takes(model, files, tmp_path, capsys):  # noqa: F811
    pairs = make_corpus().train[:8]
    for side, name in enumerate(("en", "it")):
        (tmp_path / name).write_text("".join(f"{pair[side]}\n" for pair in pairs))
    corpus = ["--corpus", "files", "--train", tmp_path / "en", tmp_path / "it"]
    out = tmp_path / "more"
    command = ["diversify", *corpus, "--out", out, "--device", "cpu"]
    assert "give models to translate with" in complaint(capsys, *command)
    both = ["--forward", model, "--backward", model, "--beam", "1"]
    assert main(list(map(str, [*command, *both]))) == 0
    new = [tmp_path / "more.src", tmp_path / "more.tgt"]
    assert capsys.readouterr().out.split() == list(map(str, new))
    found = list(zip(*(path.read_text().splitlines() for path in new)))
    translator = Translator.load(model)
    pairs = text_files(corpus[3:]).train  # one pair is kept for validation
    sources, targets = zip(*pairs)
    wanted = {*zip(sources, translator.translate(sources, 1))}
    wanted |= {*zip(translator.translate(targets, 1), targets)}
    assert set(found) == {pair for pair in wanted - set(pairs) if all(pair)}
    assert len(found) == len(set(found))
    trained = tmp_path / "trained"
    options = [*files, *SMALL, "--steps", "2", "--device", "cpu", "--out", trained]
    assert main(list(map(str, ["train", *options, "--add", *new]))) == 0
    assert f"{34 + len(found)} pairs of text" in capsys.readouterr().err, "two are for validation"
