"""Settings of the whole process: for a program to choose, never for a function of a library."""

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4


def tune_allocator() -> bool:
    """Let glibc keep freed memory, and return whether it could be told so.

    The system maps the pages of a fresh tensor one by one, at their first touch; for 80 MB that
    takes longer than writing the numbers. Memory that the process has kept costs nothing.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**28}
    return all(mallopt(name, value) for name, value in settings.items())
