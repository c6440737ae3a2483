"""Test train, translate and evaluate in several processes, and what happens when one is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from several import in_processes_by_command, needs_fork

from transformer.cli import main
from transformer.files import read_tensors
from transformer.recipes import checkpoints

pytestmark = needs_fork

NUMBERS = "zero one two three four five six seven eight nine".split()
NUMERI = "zero uno due tre quattro cinque sei sette otto nove".split()
SIZES = "--d-model 32 --n-heads 2 --n-layers 1 --d-ff 32 --vocab-size 120"
RUN = "--max-tokens 256 --accumulate 2 --warmup 10 --validate-every 5 --device cpu"


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Return a folder with a small corpus."""
    folder = tmp_path_factory.mktemp("text")
    for name, words in (("en", NUMBERS), ("it", NUMERI)):
        lines = (f"{a} {b} {c}\n" for a in words for b in words for c in words)
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def train(texts) -> list[str]:
    """Return the command that trains a small model without dropout."""
    files = ["--corpus", "files", "--train", str(texts / "en"), str(texts / "it")]
    return ["train", *files, *SIZES.split(), *RUN.split(), "--dropout", "0"]


@pytest.fixture(scope="module")
def model(texts, tmp_path_factory) -> Path:
    """Return the folder of a model that has hardly been trained."""
    folder = tmp_path_factory.mktemp("model")
    files = ["--corpus", "files", "--train", str(texts / "en"), str(texts / "it")]
    command = ["train", *files, *SIZES.split(), *RUN.split(), "--steps", "10", "--overwrite"]
    assert main([*command, "--out", str(folder)]) == 0
    return folder


def history(folder: Path) -> list[tuple[int, float, float]]:
    """Return step, training loss and validation loss of each row of a learning curve."""
    rows = json.loads((folder / "history.json").read_text())
    return [(row["step"], row["train_loss"], row["val_loss"]) for row in rows]


def close(found: list[tuple], expected: list[tuple]) -> bool:
    """Return whether two learning curves are equal to 1e-4."""
    same_steps = [row[0] for row in found] == [row[0] for row in expected]
    pairs = zip(found, expected, strict=False)
    return same_steps and all(a == pytest.approx(b, abs=1e-4) for a, b in pairs)


# --- train ----------------------------------------------------------------------------------------


def test_a_run_on_two_processes_goes_on_on_one_and_the_other_way(train, tmp_path, capsys) -> None:
    def go(world: int, name: str, *more: str) -> str:
        command = [*train, "--out", str(tmp_path / name), *more]
        if world == 1:
            assert main(command) == 0
            return capsys.readouterr().err
        statuses, _, errors = in_processes_by_command(world, command, tmp_path)
        assert statuses == [0] * world, errors
        return errors

    go(1, "whole", "--steps", "20")
    expected = history(tmp_path / "whole")
    said = go(2, "down", "--steps", "10")
    assert said.count(" pairs of text → ") == 1
    assert said.count("best validation loss") == 1
    go(1, "down", "--steps", "20", "--resume")
    go(1, "up", "--steps", "10")
    go(2, "up", "--steps", "20", "--resume")
    for name in ("down", "up"):
        assert close(history(tmp_path / name), expected)
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {path.name for path in (tmp_path / "whole").iterdir()}


def test_an_error_is_said_once_and_nobody_hangs(train, texts, tmp_path) -> None:
    out = tmp_path / "out"
    bad = [*train, "--out", str(out), "--d-model", "33"]
    statuses, _, errors = in_processes_by_command(2, bad, tmp_path)
    assert statuses == [1, 1]
    assert errors.count("error: ") == 1
    out.mkdir()
    (out / "config.json").write_text("{}")
    statuses, _, errors = in_processes_by_command(2, [*train, "--out", str(out)], tmp_path)
    assert statuses == [1, 1]
    assert errors.count("error: ") == 1
    assert errors.endswith(
        f"error: {out} holds a translator: start again with --overwrite, or name another --out\n"
    )


def test_other_commands_refuse_several_processes(model, tmp_path) -> None:
    command = ["export", "--model", str(model), "--to", "onnx"]
    statuses, _, errors = in_processes_by_command(2, command, tmp_path)
    assert statuses == [1, 1]
    assert errors == "error: export runs in one process: start it without torchrun\n"


def test_with_dropout_processes_draw_other_numbers_and_a_resumed_run_the_same(
    train, tmp_path
) -> None:
    command = [*train, "--dropout", "0.3", "--out"]
    for name, limits in (("whole", ["10"]), ("broken", ["5"]), ("broken", ["10", "--resume"])):
        arguments = [*command, str(tmp_path / name), "--steps", *limits]
        statuses, _, errors = in_processes_by_command(2, arguments, tmp_path)
        assert statuses == [0, 0], errors
    whole, broken = (read_tensors(checkpoints(tmp_path / n)[-1]) for n in ("whole", "broken"))
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


# --- after a process was lost ---------------------------------------------------------------------


def test_a_run_that_is_started_again_goes_on_from_its_own_checkpoint_only(train, tmp_path) -> None:
    def go(*more: str, restarts: int = 0) -> str:
        command = [*train, "--out", str(tmp_path / "out"), *more]
        count = {"TORCHELASTIC_RESTART_COUNT": str(restarts)}
        statuses, _, errors = in_processes_by_command(2, command, tmp_path, **count)
        assert statuses == [0, 0], errors
        return errors

    go("--steps", "5")
    assert [row[0] for row in history(tmp_path / "out")] == [5]
    go("--steps", "10", restarts=1)
    assert [row[0] for row in history(tmp_path / "out")] == [5, 10], "it goes on by itself"
    go("--steps", "5", "--seed", "3", "--overwrite", restarts=1)
    assert [row[0] for row in history(tmp_path / "out")] == [5], "that was another run"


# --- translate and evaluate -----------------------------------------------------------------------

LINES = "one two\n\nnine nine one\n♥\nthree\nzero four five\ntwo\n"


def test_translations_come_in_the_order_of_the_lines(model, tmp_path, capfd, monkeypatch) -> None:
    command = ["translate", "--model", str(model), "--beam", "2", "--device", "cpu", "--buffer"]
    (tmp_path / "lines").write_text(LINES, encoding="utf-8")
    with (tmp_path / "lines").open(encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main([*command, "2000"]) == 0
    alone = capfd.readouterr()
    assert alone.out.count("\n") == 7
    for buffer in ("3", "2000"):
        found = in_processes_by_command(3, [*command, buffer], tmp_path, LINES)
        assert found == ([0, 0, 0], alone.out, alone.err)


def test_strict_stops_all_processes_at_the_first_problem(model, tmp_path) -> None:
    command = ["translate", "--model", str(model), "--strict", "--device", "cpu"]
    statuses, _, errors = in_processes_by_command(2, command, tmp_path, LINES)
    assert statuses == [1, 1]
    assert errors == "error: text 2 is empty: there is nothing to translate\n"


def test_nothing_to_translate_is_said_by_rank_0(model, tmp_path) -> None:
    command = ["translate", "--model", str(model), "--device", "cpu"]
    statuses, _, errors = in_processes_by_command(2, command, tmp_path, "")
    assert statuses[0] == 1
    assert errors.startswith("error: there is nothing to translate")


def test_scores_are_those_of_one_process(model, texts, tmp_path, capfd) -> None:
    for name in ("en", "it"):
        lines = (texts / name).read_text().splitlines(keepends=True)[:9]
        (tmp_path / name).write_text("".join(lines))
    files = ["--corpus", "files", "--test", str(tmp_path / "en"), str(tmp_path / "it")]
    command = ["evaluate", "--model", str(model), *files, "--device", "cpu", "--beam", "2", "--out"]
    assert main([*command, str(tmp_path / "alone")]) == 0
    alone = capfd.readouterr().out
    statuses, out, _ = in_processes_by_command(2, [*command, str(tmp_path / "two")], tmp_path)
    assert statuses == [0, 0]
    assert out == alone
    assert (tmp_path / "two").read_text() == (tmp_path / "alone").read_text()


# --- torchrun -------------------------------------------------------------------------------------


def torchrun(arguments: list[str], *options: str) -> subprocess.Popen:
    """Start a command under torchrun, in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, "-m", "transformer", *arguments],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )


def workers_of(process: subprocess.Popen) -> list[int]:
    """Return the process ids of torchrun's workers."""
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for file in children for pid in file.read_text().split()]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_run_ends_with_the_same_score(train, tmp_path) -> None:
    command = [*train, "--dropout", "0.1", "--steps", "60", "--out"]
    whole = torchrun([*command, str(tmp_path / "whole")])
    assert whole.wait() == 0, whole.stderr.read()
    broken = torchrun(
        [*command, str(tmp_path / "broken"), "--overwrite"],
        *("--max-restarts", "2", "--monitor-interval", "0.1"),
    )
    for kept in (5, 25):
        while not any(int(p.stem[-8:]) >= kept for p in checkpoints(tmp_path / "broken")):
            assert broken.poll() is None, broken.stderr.read()
            time.sleep(0.005)
        os.kill(workers_of(broken)[-1], signal.SIGKILL)
    assert broken.wait() == 0, broken.stderr.read()
    assert [row[:1] for row in history(tmp_path / "broken")] == [(n,) for n in range(5, 65, 5)]
    one, two = (read_tensors(tmp_path / n / "model.safetensors") for n in ("whole", "broken"))
    assert all(torch.equal(one[key], two[key]) for key in one), "bit for bit"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_stops_all_after_a_checkpoint(train, tmp_path, number) -> None:
    out = tmp_path / "out"
    process = torchrun(
        [*train, "--steps", "100000", "--validate-every", "100000", "--out", str(out)]
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "training" in line and "%" in line:
            break
    time.sleep(1)
    process.send_signal(number)
    errors = "".join(lines) + process.stderr.read()
    process.wait()
    assert len(checkpoints(out)) == 1, errors
    assert errors.count("stopping after this step to write a checkpoint") == 1
    assert errors.count("go on with --resume") == 1
