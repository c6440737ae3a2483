"""A process killed at any moment loses nothing.

A training that is resumed ends with the same weights, bit for bit. Whatever is killed, the folder
holds a translator whose parts belong together.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from transformer.files import read_tensors
from transformer.recipes import checkpoints
from transformer.translator import Translator

STEPS = 240
EVERY = 5
KILLED = 1 if sys.platform == "win32" else -9
"""The exit status of a killed process."""

NUMBERS = "zero one two three four five six seven eight nine".split()
NUMERI = "zero uno due tre quattro cinque sei sette otto nove".split()


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    """Return the command that trains a small model and writes a checkpoint every few steps."""
    folder = tmp_path_factory.mktemp("text")
    for name, words in (("en", NUMBERS), ("it", NUMERI)):
        lines = (f"{a} {b} {c}\n" for a in words for b in words for c in words)
        (folder / name).write_text("".join(lines), encoding="utf-8")
    sizes = "--d-model 32 --n-heads 2 --n-layers 1 --d-ff 32 --vocab-size 120 --dropout 0.1"
    run = f"--max-tokens 256 --steps {STEPS} --warmup 50 --validate-every {EVERY} --device cpu"
    files = ["--corpus", "files", "--train", str(folder / "en"), str(folder / "it")]
    return [sys.executable, "-m", "transformer", "train", *files, *sizes.split(), *run.split()]


def start(command: list[str], out: Path) -> subprocess.Popen:
    """Start training, or resume from the last checkpoint if there is one."""
    how = "--resume" if checkpoints(out) else "--overwrite"
    return subprocess.Popen(
        [*command, "--out", str(out), how], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def kill_at_a_random_moment(command: list[str], out: Path, moments: random.Random) -> bool:
    """Start, wait for a checkpoint, and kill the process a moment later; False if it had ended."""
    before = checkpoints(out)
    process = start(command, out)
    while checkpoints(out) == before and process.poll() is None:
        time.sleep(0.005)
    time.sleep(moments.uniform(0, 0.15))
    process.kill()
    _, errors = process.communicate()
    assert process.returncode in (0, KILLED), errors.decode()
    return process.returncode == KILLED


@pytest.mark.slow
def test_a_run_killed_and_resumed_ends_with_the_same_weights(command, tmp_path):
    whole = tmp_path / "whole"
    broken = tmp_path / "broken"
    assert start(command, whole).wait() == 0
    moments = random.Random(20)
    killed = 0
    while killed < 20:
        killed += kill_at_a_random_moment(command, broken, moments)
        if checkpoints(broken)[-1].stem.endswith(f"{STEPS:08d}"):
            checkpoints(broken)[-1].unlink()
    last = start(command, broken)
    assert last.wait() == 0, last.stderr.read().decode()
    for name in ("model.safetensors", f"checkpoint-{STEPS:08d}.safetensors"):
        expected = read_tensors(whole / name)
        found = read_tensors(broken / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert {path.name for path in whole.iterdir()} == {path.name for path in broken.iterdir()}


# --- the translator in the folder -----------------------------------------------------------------

OTHER = "--vocab-size 110 --d-ff 48 --seed 1"
"""What makes another translator of the same corpus: no part of it fits the first one."""


def parts(folder: Path) -> tuple[int, int]:
    """Return two sizes of the translator in a folder; it fails if its parts do not fit."""
    translator = Translator.load(folder)
    assert len(translator.translate(["one two three"])) == 1
    return translator.tokenizer.get_vocab_size(), translator.model.config.d_ff


def run(arguments: list[str]) -> subprocess.Popen:
    """Start a command."""
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_after(process: subprocess.Popen, seconds: float) -> bool:
    """Kill a process some seconds from now; False if it has ended by itself."""
    time.sleep(seconds)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode in (0, KILLED), errors.decode()
    return process.returncode == KILLED


def train_and_kill(command: list[str], seconds: float) -> bool:
    """Train, and kill the process some seconds after it has read the corpus."""
    process = run(command)
    line = process.stderr.readline().decode()
    assert " pairs of " in line
    return kill_after(process, seconds)


def seconds_of_training(command: list[str]) -> float:
    """Return how long a whole training takes after it has read the corpus."""
    process = run(command)
    process.stderr.readline()
    start = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - start


KILLS = 50
"""Each takes seconds; test_run_folder and test_files stop the same writes within a process."""


@pytest.mark.slow
def test_killed_while_it_overwrites_a_run_the_translator_is_the_old_one_or_the_new_one(
    command, tmp_path
):
    moments = random.Random(KILLS)
    both = {}
    train = [*command, "--out", str(tmp_path / "run"), "--overwrite", "--steps", "20"]
    commands = [train, [*train, *OTHER.split()]]
    for each in commands:
        longest = seconds_of_training(each)
        both[parts(tmp_path / "run")] = each
    assert len(both) == 2
    killed = 0
    for number in range(20 * KILLS):
        if killed == KILLS:
            break
        killed += train_and_kill(commands[number % 2], moments.uniform(0, longest))
        assert parts(tmp_path / "run") in both
    assert killed == KILLS


@pytest.mark.slow
def test_killed_while_it_resumes_a_run_the_translator_is_that_of_the_run(command, tmp_path):
    moments = random.Random(KILLS)
    train = [*command, "--out", str(tmp_path), "--validate-every", "1"]
    longest = seconds_of_training([*train, "--steps", "10"])
    expected = parts(tmp_path)
    killed = 0
    for _ in range(20 * KILLS):
        if killed == KILLS:
            break
        killed += train_and_kill(
            [*train, "--steps", "1000000", "--resume"], moments.uniform(0, longest)
        )
        assert parts(tmp_path) == expected
    assert killed == KILLS
    done = int(checkpoints(tmp_path)[-1].stem.split("-")[1])
    seconds_of_training([*train, "--steps", str(done + 1), "--resume"])
    assert not list(tmp_path.glob(".*")), "no draft is left"


def export_drafts(folder: Path) -> set[Path]:
    """Return the drafts of exports in a folder; those of killed processes stay for a day."""
    return set(folder.glob(".ctranslate2.*.draft"))


@pytest.mark.slow
def test_killed_while_it_exports_the_translator_and_its_export_can_be_used(command, tmp_path):
    pytest.importorskip("ctranslate2")
    moments = random.Random(KILLS)
    seconds_of_training([*command, "--out", str(tmp_path), "--steps", "10"])
    expected = parts(tmp_path)
    export = [sys.executable, "-m", "transformer", "export", "--to", "ctranslate2"]
    killed = 0
    for _ in range(20 * KILLS):
        if killed == KILLS:
            break
        drafts = export_drafts(tmp_path)
        process = run([*export, "--model", str(tmp_path)])
        while process.poll() is None and export_drafts(tmp_path) <= drafts:
            time.sleep(0.001)
        killed += kill_after(process, moments.uniform(0, 0.03))
        assert parts(tmp_path) == expected
        translator = Translator.load(tmp_path, engine="ctranslate2")
        assert len(translator.translate(["one two three"])) == 1
    assert killed == KILLS
