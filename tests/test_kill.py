"""A training process killed at any moment loses nothing.

Resumed, it ends with the same weights, bit for bit.
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


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_and_resumed_ends_with_the_same_weights(command, tmp_path, kills):
    whole = tmp_path / "whole"
    broken = tmp_path / "broken"
    assert start(command, whole).wait() == 0
    moments = random.Random(kills)
    killed = 0
    while killed < kills:
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
