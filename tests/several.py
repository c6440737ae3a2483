"""Run a function in several processes that have joined, as torchrun would start them.

A server that has imported PyTorch and has no other thread is forked, not the process of the tests:
a lock that one of the tests' threads holds at that moment would never be released in the child.
"""

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
import torch.distributed as dist

MINUTES = 5
"""How long the processes may take together."""

PRELOADED = ["torch.distributed", "torch._dynamo", "transformer.cli", "transformer.recipes"]
"""What every process would import for seconds; an optimiser's first step imports dynamo."""

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


def in_processes(world: int, work: Callable[[], Any], **environment: str) -> list[Any]:
    """Return what `work` returns in each of `world` processes, by rank; it must be JSON.

    `work` may be a local function; what a test has patched, other than the environment, is not
    patched in the processes. Raises an AssertionError with the traceback of the first process that
    fails, or if they do not end.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {
        **os.environ,
        **environment,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(world),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    pipes, processes = [], []
    for rank in range(world):
        ours, theirs = context.Pipe(duplex=False)
        own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = context.Process(target=child, args=(cloudpickle.dumps(work), own, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        return results(pipes)
    finally:
        for process in processes:
            process.join(10)
            process.kill()  # nothing happens if it has ended
            process.join()


def child(work: bytes, environment: dict[str, str], pipe: Connection) -> None:
    """Do the work and send what it returns, or its traceback."""
    os.environ.update(environment)
    torch.manual_seed(0)  # as the fixture of each test does
    torch.set_num_threads(1)
    try:
        pipe.send_bytes(json.dumps([cloudpickle.loads(work)(), ""]).encode())
    except BaseException:
        pipe.send_bytes(json.dumps([None, traceback.format_exc()]).encode())


def results(pipes: list[Connection]) -> list[Any]:
    """Return what each process has sent, in the order of the pipes, as soon as all have."""
    until = time.monotonic() + 60 * MINUTES
    found: dict[Connection, Any] = {}
    while missing := [pipe for pipe in pipes if pipe not in found]:
        ready = wait(missing, until - time.monotonic())
        assert ready, f"{len(missing)} of {len(pipes)} processes hang"
        for pipe in ready:
            found[pipe] = result_of(pipe)
    return [found[pipe] for pipe in pipes]


def result_of(pipe: Connection) -> Any:
    """Return what a process has sent."""
    try:
        result, problem = json.loads(pipe.recv_bytes())
    except EOFError:
        result, problem = None, "the process was killed"
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
