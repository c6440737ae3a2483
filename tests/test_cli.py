"""The command line: what it does, and what it says when it can't."""

import io
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from transformer.cli import main, parser
from transformer.cli.train_command import changed_preset
from transformer.model import load_model
from transformer.recipes import PRESETS, checkpoints
from transformer.translator import Translator

WORDS = {
    "one": "uno",
    "two": "due",
    "three": "tre",
    "four": "quattro",
    "five": "cinque",
    "six": "sei",
}
SIZES = "--d-model 16 --n-heads 2 --n-layers 1 --d-ff 16 --vocab-size 100"
SMALL = [*SIZES.split(), "--dropout", "0", "--warmup", "10"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Two aligned files: every pair of number words."""
    folder = tmp_path_factory.mktemp("files")
    pairs = [(f"{a} {b}", f"{WORDS[b]} {WORDS[a]}") for a in WORDS for b in WORDS]
    for name, side in (("train.en", 0), ("train.it", 1)):
        (folder / name).write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
    return ["--corpus", "files", "--train", str(folder / "train.en"), str(folder / "train.it")]


@pytest.fixture(scope="module")
def model(files, tmp_path_factory) -> Path:
    """A model of number words, trained for a moment."""
    folder = tmp_path_factory.mktemp("model")
    assert (
        main(["train", *files, *SMALL, "--steps", "3", "--device", "cpu", "--out", str(folder)])
        == 0
    )
    return folder


def python(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "transformer", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def complaint(capsys, *arguments: object) -> str:
    """Run a command that must fail, and return its one sentence."""
    assert main([str(argument) for argument in arguments]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_training_leaves_a_translator_a_curve_and_its_picture(model):
    assert {path.name for path in model.iterdir()} >= {
        "config.json", "model.safetensors", "tokenizer.json", "history.json", "history.svg"
    }  # fmt: skip
    assert json.loads((model / "history.json").read_text())[-1]["step"] == 3


def test_translate_reads_arguments_and_standard_input(model, capsys):
    assert main(["translate", "--model", str(model), "one two", "six six", "three"]) == 0
    from_arguments = capsys.readouterr().out
    from_input = python("translate", "--model", model, input="one two\nsix six\nthree\n")
    assert from_input.returncode == 0
    assert from_input.stdout == from_arguments
    assert from_input.stdout.count("\n") == 3


def test_evaluate_prints_scores_with_their_signatures(model, files, capsys):
    test = ["--test", *files[3:]]
    assert main(["evaluate", "--corpus", "files", *test, "--model", str(model), "--beam", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sentences"] == 36
    assert "BLEU" in found and "chrF" in found
    assert all("version:" in signature for signature in found["signatures"])


def test_evaluate_writes_translations_and_scores_moses_tokens_when_asked(
    model, files, tmp_path, capsys
):
    pytest.importorskip("sacremoses")
    test = ["--corpus", "files", "--test", *files[3:], "--model", str(model), "--beam", "1"]
    out = tmp_path / "translations.txt"
    assert main(["evaluate", *test, "--moses", "it", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["moses"]["signatures"][0].count("tok:none") == 1
    assert found["signatures"][0].count("tok:13a") == 1
    assert 0 <= found["exact"] <= 1
    assert out.read_text(encoding="utf-8").count("\n") == 36


@pytest.mark.parametrize("out", [".", "file/translations.txt"])
def test_translations_that_cannot_be_written_are_refused_before_translating(
    model, files, tmp_path, capsys, monkeypatch, out
):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Translator, "n_best", lambda *args, **options: pytest.fail("too early"))
    test = ["--corpus", "files", "--test", *files[3:], "--model", model]
    sentence = complaint(capsys, "evaluate", *test, "--out", tmp_path / out)
    assert "could not write" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_scores_that_cannot_be_computed_are_refused_before_translating(
    model, files, capsys, monkeypatch
):
    monkeypatch.setattr(Translator, "n_best", lambda *args, **options: pytest.fail("too early"))
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    test = ["--corpus", "files", "--test", *files[3:], "--model", model]
    assert "sacremoses" in complaint(capsys, "evaluate", *test, "--moses", "it")


def test_scores_are_printed_before_the_translations_are_written(
    model, files, tmp_path, capsys, monkeypatch
):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    test = ["--corpus", "files", "--test", *files[3:], "--model", str(model), "--beam", "1"]
    assert main(["evaluate", *test, "--out", str(tmp_path / "out.txt")]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["sentences"] == 36
    assert "No space left on device" in shown.err


def test_a_split_that_the_corpus_lacks_is_named_with_those_it_has(model, files, capsys):
    test = ["--corpus", "files", "--test", *files[3:], "--model", model]
    sentence = complaint(capsys, "evaluate", *test, "--split", "compositional")
    assert "files has no split 'compositional', only test" in sentence
    assert "--corpus files needs --train SRC TGT" in complaint(
        capsys, "evaluate", "--corpus", "files", "--model", model
    )


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("", "text 1 is empty"),
        ("   ", "text 1 is empty"),
        ("猫猫", "no character"),
        ("one " * 600, "max_len is 512"),
    ],
)
def test_strictly_bad_text_is_answered_by_one_sentence(model, capsys, sentence, words):
    assert words in complaint(capsys, "translate", "--strict", "--model", model, sentence)


def test_the_line_of_a_bad_sentence_is_named(model, capsys):
    sentences = ["one", "", "two"]
    assert "text 2 is empty" in complaint(
        capsys, "translate", "--strict", "--model", model, *sentences
    )


def test_a_line_with_a_problem_has_its_line_and_a_warning(model, capsys):
    sentences = ["one", "猫", "", "one " * 600, "two"]
    assert main(["translate", "--model", str(model), *sentences]) == 0
    found = capsys.readouterr()
    lines = found.out.split("\n")
    assert len(lines) == 6 and lines[1:4] == ["", "", ""] and lines[0] and lines[4]
    warnings = [line for line in found.err.splitlines() if line.startswith("warning: ")]
    assert [line[:16] for line in warnings] == ["warning: line 2 ", "warning: line 4 "]
    assert main(["translate", "--copy-unknown", "--model", str(model), *sentences]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[1:4] == ["猫", "", ("one " * 600).strip()]


def test_the_best_translations_and_their_scores_are_json_lines(model, capsys):
    assert main(["translate", "--model", str(model), "--n-best", "2", "one two", "猫"]) == 0
    known, unknown = map(json.loads, capsys.readouterr().out.splitlines())
    first, second = known["translations"]
    assert known["source"] == "one two" and first["score"] >= second["score"]
    assert unknown == {"source": "猫", "translations": [{"text": "", "score": 0.0}]}
    assert main(["translate", "--model", str(model), "--scores", "--beam", "1", "one two"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["translations"]
    assert math.isfinite(found["score"])


def test_a_least_length_is_kept(model, capsys):
    options = ["--scores", "--min-len", "9", "--beam", "2"]
    assert main(["translate", "--model", str(model), *options, "one two"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["translations"]
    assert len(found["text"].split()) >= 5


def test_an_option_of_another_corpus_is_refused(files, model, tmp_path, capsys):
    out = ["--out", tmp_path / "new"]
    sentence = complaint(capsys, "train", "--train", *files[3:], *out)
    assert "--train is an option of --corpus files, not en-it" in sentence
    sentence = complaint(capsys, "evaluate", "--model", model, "--test", *files[3:])
    assert "--test is an option of --corpus files" in sentence
    sentence = complaint(capsys, "train", *files, "--src", "de", *out)
    assert "--src is an option of --corpus multi30k, not files" in sentence
    assert "--tok is an option" in complaint(capsys, "train", "--tok", *out)


@pytest.mark.parametrize(
    "options",
    ["--length-penalty nan", "--length-penalty inf", "--beam 0", "--n-best 0", "--buffer 0"],
)
def test_an_option_that_makes_no_sense_is_refused(model, options, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["translate", "--model", str(model), *options.split(), "one"])
    assert exit.value.code == 2


def test_a_vocabulary_is_at_most_as_large_as_asked(files, tmp_path, capsys):
    sizes = [*SMALL, "--steps", "2", "--device", "cpu", "--out"]
    for size in ("0", "-5", "4"):
        sentence = complaint(capsys, "train", *files, *sizes, tmp_path / "a", "--vocab-size", size)
        assert f"not {size}" in sentence
    assert main(["train", *files, *sizes, str(tmp_path / "b"), "--vocab-size", "10"]) == 0
    assert load_model(tmp_path / "b").config.vocab_size == 10


def test_moses_tokens_are_of_the_targets_language(model, files, capsys):
    pytest.importorskip("sacremoses")
    test = ["--corpus", "files", "--test", *files[3:], "--model", model, "--beam", "1"]
    assert "--moses needs the language" in complaint(capsys, "evaluate", *test, "--moses")


def test_an_exported_model_may_be_kept_elsewhere(model, tmp_path, capsys):
    pytest.importorskip("ctranslate2")
    elsewhere = tmp_path / "kept"
    options = ["--engine", "ctranslate2", "--engine-folder", str(elsewhere)]
    assert main(["translate", "--model", str(model), *options, "one two"]) == 0
    assert (elsewhere / "model.bin").is_file()
    sentence = complaint(capsys, "translate", "--model", model, "--engine-folder", elsewhere, "one")
    assert "engine pytorch reads the model's own folder" in sentence


# --- standard input -------------------------------------------------------------------------------


def test_standard_input_is_utf8_whatever_the_locale(model, capsys):
    env = os.environ | {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = ["translate", "--model", str(model)]
    assert main([*command, "one two", "six six"]) == 0
    plain = capsys.readouterr().out
    command = [sys.executable, "-m", "transformer", *command]
    text = "\ufeffone two\r\nsix six\u00a0\n".encode()
    found = subprocess.run(command, input=text, capture_output=True, check=True, env=env)
    assert found.stdout == plain.encode()
    copied = [*command, "--copy-unknown", "è"]
    assert subprocess.check_output(copied, env=env) == "è\n".encode()


def feed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Make `text` the standard input of this process."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one\ncaffè\n".encode("latin-1"), "line 2 of standard input is not UTF-8"),
        ("one\n".encode("utf-16"), "it begins like UTF-16"),
    ],
)
def test_another_encoding_is_named_after_the_lines_before_it(
    model, capsys, monkeypatch, text, words
):
    feed(monkeypatch, text)
    assert main(["translate", "--model", str(model)]) == 1
    said = capsys.readouterr()
    assert words in said.err and "Traceback" not in said.err
    assert said.out.count("\n") == text.count(b"one\n")


def test_a_program_that_writes_a_line_and_waits_gets_its_answer(model):
    command = [sys.executable, "-m", "transformer", "translate", "--model", str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        for line in (b"one two\n", b"\n", b"six\n"):
            process.stdin.write(line)
            ready, _, _ = select.select([process.stdout], [], [], 60)
            assert ready, "no answer"
            assert process.stdout.readline().strip() or line == b"\n"
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_reader_that_has_enough_ends_the_translation_quietly(model):
    command = f"{sys.executable} -m transformer translate --beam 1 --buffer 50 --model {model}"
    script = f"(yes one two | head -20000 | {command}; echo status $? >&2) | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("\n") == 1
    assert done.stderr == "status 141\n"


def test_closed_standard_input_is_named(model):
    script = f"{sys.executable} -m transformer translate --model {model} <&-"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == (
        "error: standard input is closed, and there are no sentences as arguments\n"
    )


def test_an_error_of_the_programs_own_is_not_the_users(model, capsys, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr("transformer.cli.translate_command.load_translator", broken)
    assert main(["translate", "--model", str(model), "one"]) == 70
    said = capsys.readouterr().err
    assert said == "internal error: RuntimeError: a bug; --debug shows where\n"
    assert main(["translate", "--debug", "--model", str(model), "one"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_where_a_users_error_was_raised(capsys):
    assert main(["translate", "--debug", "--model", "nothing", "one"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "error: there is no model 'nothing'" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--d-model 16 --n-heads 3", "d_model=16 must be divisible by n_heads=3"),
        ("--n-heads 0", "n_heads must be an integer from 1"),
        ("--dropout -0.1", "dropout must be at least 0"),
        ("--norm none", "norm must be one of post, pre"),
        ("--precision fp8", "precision must be auto, fp32 or bf16"),
        ("--steps 0", "steps must be above 0"),
        ("--max-len 2", "max_len is 2"),
        ("--label-smoothing 1", "label_smoothing must be at least 0 and below 1"),
        ("--ema-decay 1", "ema_decay must be at least 0 and below 1"),
        ("--peak-lr 0", "peak_lr must be above 0"),
        ("--max-grad-norm 0", "max_grad_norm must be above 0"),
        ("--accumulate 0", "accumulate must be above 0"),
        ("--minutes 0", "minutes must be above 0"),
    ],
)
def test_impossible_settings_are_refused(files, tmp_path, capsys, options, words):
    assert words in complaint(capsys, "train", *files, "--out", tmp_path, *options.split())
    assert not (tmp_path / "model.safetensors").exists()


def test_files_of_different_length_are_refused(files, tmp_path, capsys):
    (tmp_path / "short.it").write_text("uno\n")
    sentence = complaint(
        capsys,
        "train",
        "--corpus",
        "files",
        "--train",
        files[3],
        tmp_path / "short.it",
        "--out",
        tmp_path,
    )
    assert "36 lines" in sentence and "1: they must be aligned" in sentence


def test_missing_files_and_models_are_named(files, tmp_path, capsys):
    assert "there is no file nowhere.en" in complaint(
        capsys, "train", "--corpus", "files", "--train", "nowhere.en", files[4], "--out", tmp_path
    )
    assert "there is no model 'nothing'" in complaint(
        capsys, "translate", "--model", "nothing", "one"
    )
    assert "where Multi30k was to be" in complaint(
        capsys, "train", "--corpus", "multi30k", "--folder", tmp_path, "--out", tmp_path
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_was_cut_off_is_named(model, tmp_path, capsys, name):
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes((model / name).read_bytes()[:-20])
    assert name in complaint(capsys, "translate", "--model", tmp_path, "one")


def test_weights_of_another_config_are_refused(model, tmp_path, capsys):
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    settings = json.loads((model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"d_ff": 32}))
    assert "belong to another config" in complaint(capsys, "translate", "--model", tmp_path, "one")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def copy(model, tmp_path) -> Path:
    """A copy of the trained model's folder, which a test may change."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


def test_a_run_is_not_overwritten_unless_asked(copy, files, capsys):
    before = contents(copy)
    train = ["train", *files, *SMALL, "--steps", "2", "--out", str(copy)]
    assert "go on with --resume, start again with --overwrite" in complaint(capsys, *train)
    assert contents(copy) == before
    assert main([*train, "--overwrite"]) == 0
    assert [path.stem for path in checkpoints(copy)] == ["checkpoint-00000002"]


@pytest.mark.parametrize(
    "kept", ["config.json model.safetensors tokenizer.json", "tokenizer.json", "history.json"]
)
def test_a_translator_without_checkpoints_is_not_overwritten_either(copy, files, capsys, kept):
    for path in copy.iterdir():
        if path.name not in kept.split() and path.is_file():
            path.unlink()
    before = contents(copy)
    train = ["train", *files, *SMALL, "--steps", "2", "--out", str(copy)]
    assert "holds a translator: start again with --overwrite" in complaint(capsys, *train)
    assert contents(copy) == before
    assert "no checkpoint" in complaint(capsys, *train, "--resume")
    assert contents(copy) == before
    assert main([*train, "--overwrite"]) == 0


def test_resuming_with_another_config_is_refused(copy, files, capsys):
    before = contents(copy)
    for option, words in (
        ("--d-ff 32", "belongs to another config: d-ff is 16 there, not 32"),
        ("--vocab-size 60", "belongs to another config: vocab-size is 100 there, not 60"),
        ("--dropout 0.5", "belongs to another config: dropout is 0.0 there, not 0.5"),
    ):
        train = ["train", *files, *option.split(), "--steps", "9", "--out", copy, "--resume"]
        assert words in complaint(capsys, *train)
        assert contents(copy) == before


@pytest.mark.parametrize(
    "options",
    [
        "--overwrite --max-len 2",
        "--overwrite --n-heads 3",
        "--overwrite --precision fp8",
        "--resume --precision fp8",
        "--resume --max-len 4",
        "--checkpoint nowhere.safetensors --overwrite",
        "--checkpoint nowhere.safetensors",
    ],
)
def test_a_run_that_is_refused_leaves_every_byte_as_it_was(copy, files, capsys, options):
    before = contents(copy)
    sizes = [] if "--resume" in options else SMALL
    train = ["train", *files, *sizes, "--steps", "9", "--out", copy]
    complaint(capsys, *train, *options.split())
    assert contents(copy) == before


def test_a_line_that_is_too_long_leaves_the_old_run_as_it_was(copy, files, tmp_path, capsys):
    before = contents(copy)
    for name in ("en", "it"):
        (tmp_path / name).write_text("one two\n" * 3 + "one " * 600 + "\n" + "two\n" * 30)
    long = ["--corpus", "files", "--train", tmp_path / "en", tmp_path / "it", *SMALL]
    train = ["train", *long, "--steps", "9", "--out", copy, "--overwrite", "--strict"]
    assert "max_len is 512" in complaint(capsys, *train)
    assert contents(copy) == before


def test_a_checkpoint_from_elsewhere_does_not_overwrite_a_run_unless_asked(
    model, copy, files, capsys
):
    (last,) = checkpoints(model)
    (copy / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes() + b" ")
    before = contents(copy)
    train = ["train", *files, "--steps", "4", "--checkpoint", str(last), "--out", str(copy)]
    assert "start again with --overwrite" in complaint(capsys, *train)
    assert contents(copy) == before
    assert main([*train, "--overwrite"]) == 0
    assert (copy / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert [path.stem for path in checkpoints(copy)] == ["checkpoint-00000004"]


def test_a_resumed_run_has_the_settings_of_its_checkpoint(copy, files, capsys):
    train = ["train", *files, "--out", str(copy), "--resume"]
    assert main([*train, "--steps", "4"]) == 0
    shown = capsys.readouterr().err
    assert " was " not in shown
    rows = json.loads((copy / "history.json").read_text())
    assert [row["learning_rate"] for row in rows] == pytest.approx([5e-3 * 0.3, 5e-3 * 0.4])
    assert load_model(copy).config.d_model == 16
    assert main([*train, "--steps", "5", "--peak-lr", "0.01", "--warmup", "10"]) == 0
    shown = capsys.readouterr().err
    assert "peak-lr was 0.005, now 0.01\n" in shown
    assert "warmup was" not in shown


def test_a_run_that_has_ended_says_so_and_changes_nothing(copy, files, capsys):
    before = contents(copy)
    for options in (["--steps", "3"], []):
        assert main(["train", *files, "--out", str(copy), "--resume", *options]) == 0
        assert "nothing is left to train: 3 of 3 steps are done\n" in capsys.readouterr().err
        assert contents(copy) == before


HOLD = """
import sys
from transformer.recipes import only_run
with only_run(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_a_second_training_in_one_folder_is_refused(copy, files, capsys):
    before = contents(copy)
    command = [sys.executable, "-c", HOLD, str(copy)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "locked\n"
        for how in ("--resume", "--overwrite"):
            train = ["train", *files, *SMALL, "--steps", "9", "--out", copy, how]
            assert f"another process is training in {copy}: wait" in complaint(capsys, *train)
        process.kill()
    assert contents(copy) == before


def test_a_damaged_checkpoint_is_named_and_the_one_before_can_be_used(files, tmp_path, capsys):
    train = ["train", *files, *SMALL, "--validate-every", "2", "--out", str(tmp_path)]
    assert main([*train, "--steps", "4"]) == 0
    before, last = checkpoints(tmp_path)
    last.write_bytes(last.read_bytes()[:1000])
    sentence = complaint(capsys, *train, "--steps", "6", "--resume")
    assert last.name in sentence and f"--checkpoint {before}" in sentence
    assert main([*train, "--steps", "6", "--checkpoint", str(before)]) == 0
    assert json.loads((tmp_path / "history.json").read_text())[-1]["step"] == 6


def test_a_folder_that_cannot_be_written_is_named(files, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert "could not write" in complaint(
        capsys, "train", *files, *SMALL, "--steps", "2", "--out", tmp_path / "file"
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limit for the size of files")
def test_a_full_disk_keeps_the_last_good_files(files, tmp_path):
    import resource

    train = ["train", *files, *SMALL, "--out", tmp_path]
    assert python(*train, "--steps", 4).returncode == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")}

    def small_files_only():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    full = python(*train, "--steps", 8, "--resume", preexec_fn=small_files_only)
    assert full.returncode == 1
    assert "could not write" in full.stderr and "Traceback" not in full.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(sys.platform == "win32", reason="no signals for another process")
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_leaves_a_checkpoint_that_resumes(files, tmp_path, number, status):
    command = [sys.executable, "-m", "transformer", "train", *files, *SMALL, "--out", str(tmp_path)]
    quick = ["--validate-every", "20"]
    process = subprocess.Popen(
        [*command, *quick, "--steps", "1000000"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not checkpoints(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "go on with --resume" in errors and "Traceback" not in errors
    steps = int(checkpoints(tmp_path)[-1].stem.split("-")[1])
    assert python(*command[3:], *quick, "--steps", steps + 5, "--resume").returncode == 0
    assert json.loads((tmp_path / "history.json").read_text())[-1]["step"] == steps + 5
    assert load_model(tmp_path).config.d_model == 16


def test_nothing_to_translate_is_said(model, capsys, monkeypatch):
    feed(monkeypatch, b"")
    assert "there is nothing to translate" in complaint(capsys, "translate", "--model", model)


def test_help_names_every_command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = parser().format_help()
    assert all(command in text for command in ("train", "translate", "evaluate", "export"))


@pytest.mark.parametrize("command", ["train", "translate", "evaluate", "export"])
def test_every_option_has_a_help_text_with_its_default(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "None" not in text
    assert "--device DEVICE" in text or command == "export"
    if command == "train":
        assert "gradients to this norm (default: inf)" in text
        assert "minutes of training (default: 30.0)" in text


def test_a_limit_replaces_both_limits_of_the_preset():
    def limits(*arguments: str) -> tuple[float, int]:
        options = parser().parse_args(["train", *arguments])
        preset = changed_preset(PRESETS["multi30k"], options)
        return preset.minutes, preset.training.steps

    assert limits() == (30.0, 100_000)
    assert limits("--steps", "9") == (math.inf, 9)
    assert limits("--minutes", "2") == (2.0, 10**9)
    assert limits("--steps", "9", "--minutes", "2") == (2.0, 9)


def test_options_change_the_preset_and_nothing_else_does():
    arguments = "--n-layers 3 --vocab-size 77 --accumulate 4 --max-grad-norm 2.5 --ema-decay 0.5"
    options = parser().parse_args(["train", *arguments.split()])
    preset = changed_preset(PRESETS["en-it"], options)
    assert preset.vocab_size == 77
    assert preset.sizes == PRESETS["en-it"].sizes | {"n_layers": 3}
    changed = {"accumulate": 4, "max_grad_norm": 2.5, "ema_decay": 0.5}
    assert asdict(preset.training) == asdict(PRESETS["en-it"].training) | changed
    plain = parser().parse_args(["train"])
    assert changed_preset(PRESETS["en-it"], plain) == PRESETS["en-it"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["translate", "--device", "cuda", "one"])
    assert exit.value.code == 2
    assert "there is no device 'cuda'" in capsys.readouterr().err


# --- engines --------------------------------------------------------------------------------------


def translate(model: Path, *options: str) -> list[str]:
    return ["translate", "--model", str(model), "--device", "cpu", *options]


@pytest.mark.parametrize(
    ("engine", "packages"),
    [
        ("ctranslate2", ["ctranslate2"]),
        pytest.param("onnx", ["onnx", "onnxscript", "onnxruntime"], marks=pytest.mark.slow),
    ],
)
def test_every_engine_gives_the_same_text(model, capsys, engine: str, packages: list[str]):
    for package in packages:
        pytest.importorskip(package)
    texts = []
    for name in ("pytorch", engine):
        assert main([*translate(model, "--engine", name), "one two", "six six", "three"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].count("\n") == 3
    assert (model / engine).is_dir()


def test_int8_translates_too(model, capsys):
    pytest.importorskip("ctranslate2")
    options = ["--engine", "ctranslate2", "--precision", "int8"]
    assert main([*translate(model, *options), "one two", "six six", "three"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert (model / "ctranslate2" / "model.bin").is_file()


def test_half_precision_translates_too(model, capsys):
    assert main([*translate(model, "--precision", "bf16"), "one two"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_a_precision_that_the_engine_lacks_is_named(model, capsys):
    sentence = complaint(capsys, *translate(model, "--precision", "int8"), "one")
    assert "no engine pytorch with precision int8: pytorch has fp32, bf16" in sentence
    options = ["--engine", "ctranslate2", "--precision", "bf16"]
    assert "no precision 'bf16' on cpu" in complaint(capsys, *translate(model, *options), "one")


def test_export_says_where_the_model_is(model, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(
        "transformer.engines.onnx.write_graph",
        lambda graph, inputs, output, path: path.write_text(output),
    )
    out = tmp_path / "graphs"
    assert main(["export", "--to", "onnx", "--model", str(model), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert {path.name for path in out.iterdir()} >= {"encoder.onnx", "decoder.onnx"}


def test_a_model_that_is_not_there_is_not_exported(capsys):
    sentence = complaint(capsys, "export", "--to", "onnx", "--model", "nowhere")
    assert "there is no model 'nowhere'" in sentence
