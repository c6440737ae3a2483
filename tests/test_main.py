"""The command line: what it does, and what it says when it can't."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from transformer.__main__ import main
from transformer.model import load_model
from transformer.training import checkpoints

WORDS = {"one": "uno", "two": "due", "three": "tre", "four": "quattro", "five": "cinque", "six": "sei"}
SMALL = "--d-model 16 --n-heads 2 --n-layers 1 --d-ff 16 --vocab-size 100 --dropout 0 --warmup 10".split()


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
    assert main(["train", *files, *SMALL, "--steps", "3", "--device", "cpu", "--out", str(folder)]) == 0
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
        "config.json", "model.safetensors", "tokenizer.json", "history.json", "history.png"
    }  # fmt: skip
    assert json.loads((model / "history.json").read_text())[-1]["step"] == 3


def test_translate_reads_arguments_and_standard_input(model):
    from_arguments = python("translate", "--model", model, "one two", "six six", "three")
    from_input = python("translate", "--model", model, input="one two\nsix six\nthree\n")
    assert from_arguments.returncode == from_input.returncode == 0
    assert from_arguments.stdout == from_input.stdout
    assert from_input.stdout.count("\n") == 3


def test_evaluate_prints_scores_with_their_signatures(model, files, capsys):
    test = ["--test", *files[3:]]
    assert main(["evaluate", "--corpus", "files", *test, "--model", str(model), "--beam", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sentences"] == 36
    assert "BLEU" in found and "chrF" in found
    assert all("version:" in signature for signature in found["signatures"])


@pytest.mark.parametrize(
    ("sentence", "words"),
    [("", "text 1 is empty"), ("   ", "text 1 is empty"), ("猫猫", "no character"), ("one " * 600, "max_len is 512")],
)
def test_bad_text_is_answered_by_one_sentence(model, capsys, sentence, words):
    assert words in complaint(capsys, "translate", "--model", model, sentence)


def test_the_line_of_a_bad_sentence_is_named(model, capsys):
    assert "text 2 is empty" in complaint(capsys, "translate", "--model", model, "one", "", "two")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--d-model 16 --n-heads 3", "d_model=16 must be divisible by n_heads=3"),
        ("--n-heads 0", "n_heads must be a whole number from 1"),
        ("--dropout -0.1", "dropout must be at least 0"),
        ("--norm none", "norm must be one of post, pre"),
        ("--precision fp8", "precision must be auto, fp32 or bf16"),
        ("--steps 0", "steps must be above 0"),
        ("--max-len 2", "max_len is 2"),
    ],
)
def test_settings_that_can_not_be_are_refused(files, tmp_path, capsys, options, words):
    assert words in complaint(capsys, "train", *files, "--out", tmp_path, *options.split())
    assert not (tmp_path / "model.safetensors").exists()


def test_files_of_different_length_are_refused(files, tmp_path, capsys):
    (tmp_path / "short.it").write_text("uno\n")
    sentence = complaint(
        capsys, "train", "--corpus", "files", "--train", files[3], tmp_path / "short.it", "--out", tmp_path
    )
    assert "36 lines" in sentence and "1: they must be aligned" in sentence


def test_missing_files_and_models_are_named(files, tmp_path, capsys):
    assert "there is no file nowhere.en" in complaint(
        capsys, "train", "--corpus", "files", "--train", "nowhere.en", files[4], "--out", tmp_path
    )
    assert "there is no model 'nothing'" in complaint(capsys, "translate", "--model", "nothing", "one")
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


def test_a_run_is_not_overwritten_unless_asked(model, files, capsys):
    before = (model / "model.safetensors").read_bytes()
    assert "--resume" in complaint(capsys, "train", *files, *SMALL, "--steps", "5", "--out", model)
    assert (model / "model.safetensors").read_bytes() == before


def test_resuming_with_another_config_is_refused(model, files, capsys):
    options = [*SMALL, "--d-ff", "32", "--steps", "9"]
    assert "belongs to another config" in complaint(capsys, "train", *files, *options, "--out", model, "--resume")


def test_a_damaged_checkpoint_is_named_and_the_one_before_can_be_used(files, tmp_path, capsys):
    train = ["train", *files, *SMALL, "--validate-every", "2", "--out", str(tmp_path)]
    assert main([*train, "--steps", "4"]) == 0
    before, last = checkpoints(tmp_path)
    last.write_bytes(last.read_bytes()[:1000])
    sentence = complaint(capsys, *train, "--steps", "6", "--resume")
    assert last.name in sentence and f"--checkpoint {before}" in sentence
    assert main([*train, "--steps", "6", "--checkpoint", str(before)]) == 0
    assert json.loads((tmp_path / "history.json").read_text())[-1]["step"] == 6


def test_a_folder_that_can_not_be_written_is_named(files, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert "could not write" in complaint(capsys, "train", *files, *SMALL, "--steps", "2", "--out", tmp_path / "file")


def test_a_full_disk_keeps_the_last_good_files(files, tmp_path):
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


def test_ctrl_c_leaves_a_checkpoint_that_resumes(files, tmp_path):
    command = [sys.executable, "-m", "transformer", "train", *files, *SMALL, "--out", str(tmp_path)]
    quick = ["--validate-every", "20"]
    process = subprocess.Popen([*command, *quick, "--steps", "1000000"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not checkpoints(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in errors and "Traceback" not in errors
    steps = int(checkpoints(tmp_path)[-1].stem.split("-")[1])
    assert python(*command[3:], *quick, "--steps", steps + 5, "--resume").returncode == 0
    assert json.loads((tmp_path / "history.json").read_text())[-1]["step"] == steps + 5
    assert load_model(tmp_path).config.d_model == 16


def test_help_names_every_command():
    text = python("--help", env=os.environ | {"COLUMNS": "100"}).stdout
    assert all(command in text for command in ("train", "translate", "evaluate"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["translate", "--device", "cuda", "one"])
    assert exit.value.code == 2
    assert "there is no device 'cuda'" in capsys.readouterr().err


# --- engines ---------------------------------------------------------------------------------------------------------


def test_another_engine_gives_the_same_text(model, capsys):
    pytest.importorskip("ctranslate2")
    sentences = ["one two", "six six", "three"]
    texts = []
    for options in ([], ["--engine", "ctranslate2"], ["--engine", "ctranslate2", "--precision", "int8"]):
        assert main(["translate", "--model", str(model), "--device", "cpu", *options, *sentences]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[2].count("\n") == 3
    assert (model / "ctranslate2" / "model.bin").is_file()


def test_export_says_where_the_model_is(model, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    assert main(["export", "--to", "onnx", "--model", str(model), "--out", str(tmp_path / "graphs")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "graphs")
    assert {path.name for path in (tmp_path / "graphs").iterdir()} >= {"encoder.onnx", "decoder.onnx"}


def test_half_precision_translates_too(model, capsys):
    assert main(["translate", "--model", str(model), "--device", "cpu", "--precision", "bf16", "one two"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_a_precision_that_the_engine_lacks_is_named(model, capsys):
    assert "engine torch has fp32 and bf16" in complaint(
        capsys, "translate", "--model", model, "--precision", "int8", "one"
    )
    assert "no precision 'bf16' on cpu" in complaint(
        capsys,
        "translate",
        "--model",
        model,
        "--engine",
        "ctranslate2",
        "--precision",
        "bf16",
        "--device",
        "cpu",
        "one",
    )


def test_what_is_not_there_can_not_be_exported(capsys):
    assert "there is no model 'nowhere'" in complaint(capsys, "export", "--to", "onnx", "--model", "nowhere")
