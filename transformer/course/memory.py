"""Limit the memory of this process, where the system can."""

from contextlib import suppress
from pathlib import Path


def limit_memory(gigabytes: float) -> None:
    """Let this process take that much more memory than it has now; 0 is no limit.

    Where the system has no such limits (Windows, and macOS, which does not enforce them), nothing
    is done.
    """
    if not gigabytes:
        return
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        limit = pages * resource.getpagesize() + int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
