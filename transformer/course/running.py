"""Run the examination of a folder in fresh processes, with limits of time and memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.course.exercises import exercise
from transformer.course.folder import Folder
from transformer.course.lessons import REPOSITORY, lesson
from transformer.course.rows import BROKEN, MISSING, Row
from transformer.course.syncing import sync_all

STARTING = 120.0
POLL = 0.05


@dataclass(frozen=True)
class Limits:
    """Seconds for one exercise or one import, gigabytes for the process (0: no limit), and a seed.

    With another seed than 0, checks draw other numbers and sizes.
    """

    seconds: float = 60.0
    gigabytes: float = 0.0
    seed: int = 0


def examine(folder: Folder, names: Sequence[str], limits: Limits | None = None) -> list[Row]:
    """Return the row of each exercise, from what is saved in the folder.

    Notebooks and modules are made equal first. What is missing or cannot be read is a row, as is an
    exercise that ends the process or takes too long. Raises OSError if no process starts.
    """
    rows = unreadable(names, sync_all(folder))
    given_up: dict[str, str] = {}
    waiting = [name for name in names if name not in rows]
    while waiting:
        events, end = run(folder, waiting, limits or Limits(), given_up)
        found = {
            event["row"]["exercise"]: Row(**event["row"]) for event in events if "row" in event
        }
        rows |= found
        if len(found) < len(waiting):
            rows |= blame(folder, waiting, events, end, given_up)
        waiting = [name for name in waiting if name not in rows]
    return [rows[name] for name in names]


def unreadable(names: Sequence[str], trouble: dict[str, str]) -> dict[str, Row]:
    """Return the rows of chapters whose notebook is missing or damaged."""
    rows = {}
    for name in names:
        reason = trouble.get(lesson(exercise(name).chapter).module)
        if reason:
            rows[name] = Row(name, MISSING if "is missing" in reason else BROKEN, reason)
    return rows


def blame(
    folder: Folder,
    waiting: Sequence[str],
    events: Sequence[dict[str, Any]],
    end: str,
    given_up: dict[str, str],
) -> dict[str, Row]:
    """Return the rows of what was under way when a process ended early.

    A module whose import did not end is given up, so that the chapters after it can be examined.
    """
    last = events[-1] if events else {}
    if "module" in last:
        module = last["module"]
        given_up[module] = f"importing {folder.package}/{module}.py {end}"
        return {}
    if "exercise" in last:
        return {last["exercise"]: Row(last["exercise"], BROKEN, f"it {end}")}
    if "row" in last:
        return {}
    raise OSError(f"the examination of {folder.path} {end}")


def run(
    folder: Folder, names: Sequence[str], limits: Limits, given_up: dict[str, str]
) -> tuple[list[dict[str, Any]], str]:
    """Run one process, and return its events and how it ended."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        out = Path(place) / "events"
        out.touch()
        command = [sys.executable, "-m", "transformer.course.examine", str(folder.path), *names]
        command += ["--out", str(out), "--seed", str(limits.seed)]
        command += ["--gigabytes", str(limits.gigabytes), "--broken", json.dumps(given_up)]
        with started(command, place, Path(place) / "errors") as process:
            end = watch(process, out, limits.seconds)
        events = read_events(out)
        if process.returncode and not events:
            errors = (Path(place) / "errors").read_text(encoding="utf-8", errors="replace")
            end = f"{end}: {errors.strip().rpartition(chr(10))[2]}"
    return events, end


@contextmanager
def started(command: Sequence[str], place: str, errors: Path) -> Iterator[subprocess.Popen]:
    """Start a process that finds this package first, and kill it at the end of the block."""
    paths = [str(REPOSITORY), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment.setdefault("MPLBACKEND", "Agg")
    with open(errors, "wb") as file:
        process = subprocess.Popen(
            command,
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def watch(process: subprocess.Popen, out: Path, seconds: float) -> str:
    """Wait until a process ends, or takes too long over one event; say which."""
    seen = 0
    deadline = time.monotonic() + STARTING
    while process.poll() is None:
        written = out.stat().st_size
        if written != seen:
            seen = written
            deadline = time.monotonic() + seconds
        if time.monotonic() > deadline:
            return f"did not end within {seconds:.0f} seconds" if seen else "did not start"
        time.sleep(POLL)
    return ended(process.returncode)


def ended(status: int) -> str:
    """Say how a process ended that was not killed for its time."""
    if status < 0:
        return f"was killed by signal {-status}" if os.name == "posix" else "was killed"
    return f"ended the process with status {status}"


def read_events(out: Path) -> list[dict[str, Any]]:
    """Return the events that a process wrote; a line that was cut off is left out."""
    events = []
    for line in out.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events
