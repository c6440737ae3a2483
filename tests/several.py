"""Run a function in several processes that have joined, as torchrun would start them.

The processes are forked, so that they need not import PyTorch again.
"""

import json
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


def in_processes(world: int, work: Callable[[], Any], **environment: str) -> list[Any]:
    """Return what `work` returns in each of `world` processes, by rank; it must be JSON.

    Raises an AssertionError with the traceback of the first process that fails.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = environment | {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(world),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    context = multiprocessing.get_context("fork")
    started = []
    for rank in range(world):
        ours, theirs = context.Pipe()
        own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = context.Process(target=child, args=(work, own, theirs))
        process.start()
        theirs.close()
        started.append((process, ours))
    return [result_of(*each) for each in started]


def child(work: Callable[[], Any], environment: dict[str, str], pipe: Connection) -> None:
    """Do the work and send what it returns, or its traceback."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        pipe.send(json.dumps([work(), ""]))
    except BaseException:
        pipe.send(json.dumps([None, traceback.format_exc()]))


def result_of(process: multiprocessing.Process, pipe: Connection) -> Any:
    """Wait for a process, and return what it sent."""
    try:
        result, problem = json.loads(pipe.recv())
    except EOFError:
        result, problem = None, "the process was killed"
    process.join()
    assert not problem, problem
    return result


def in_processes_by_command(
    world: int, arguments: list[str], folder: Path, stdin: str = "", **environment: str
) -> tuple[list[int], str, str]:
    """Run a command line in several processes; return their statuses, and what they wrote.

    `folder` is for the files that they write to instead of a terminal.
    """
    (folder / "stdin").write_text(stdin, encoding="utf-8")

    def command() -> int:
        from transformer.cli import main

        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        sys.stdin = (folder / "stdin").open(encoding="utf-8")
        try:
            return main(arguments)
        finally:
            for stream in (sys.stdout, sys.stderr, sys.__stderr__):
                stream.flush()

    statuses = in_processes(world, command, **environment)
    out, errors = ((folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    for name in ("stdout", "stderr"):
        (folder / name).unlink()
    return statuses, out, errors
