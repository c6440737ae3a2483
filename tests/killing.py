"""Kill a process, as far as its files can tell, at any of its operations on files."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

OPERATIONS = ("replace", "unlink", "mkdir", "rmdir", "fsync")


class Killed(BaseException):
    """What is raised instead of the operation at which the process is killed, and ever after."""


@contextmanager
def killed_at(moment: int, counted: list[str] | None = None) -> Iterator[None]:
    """Let every operation on files fail from the one with the number `moment` on.

    Cleaning up fails, too: a process that is killed cannot do it.
    """
    done: list[str] = [] if counted is None else counted

    def watch(name: str, operation: Callable) -> Callable:
        def run(*arguments, **options):
            if len(done) >= moment:
                raise Killed
            done.append(name)
            return operation(*arguments, **options)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, watch(name, getattr(os, name)))
        yield


def kills(work: Callable[[], object]) -> range:
    """Do the work, and return the moments at which it can be killed."""
    counted: list[str] = []
    with killed_at(10**9, counted):
        work()
    return range(len(counted))
