"""`course watch`: check a chapter whenever one of its two forms is saved."""

import time
from collections.abc import Callable, Sequence

from transformer.course.commands import check, chosen
from transformer.course.exercises import exercise
from transformer.course.folder import Folder
from transformer.course.lessons import Lesson, lesson

POLL = 0.5

Times = dict[str, tuple[int, ...]]
"""When the forms of each chapter were saved, by module."""


def saved(folder: Folder, lessons: Sequence[Lesson]) -> Times:
    """Return when the notebook and the module of each chapter were saved."""
    found = {}
    for one in lessons:
        paths = (folder.notebook(one), folder.module(one))
        found[one.module] = tuple(path.stat().st_mtime_ns for path in paths if path.exists())
    return found


def watch(
    folder: Folder,
    what: Sequence[str],
    seconds: float = 60.0,
    more: Callable[[], bool] = lambda: True,
) -> None:
    """Check the exercises of a chapter whenever it is saved, as long as `more` returns True."""
    names = chosen(folder, what)
    numbers = dict.fromkeys(exercise(name).chapter for name in names)
    lessons = [lesson(number) for number in numbers]
    check(folder, what, seconds)
    before = saved(folder, lessons)
    print("\nWaiting until you save. Ctrl-C ends this.", flush=True)
    while more():
        time.sleep(POLL)
        now = saved(folder, lessons)
        changed = {one.number for one in lessons if now[one.module] != before[one.module]}
        if changed:
            print(f"\n{time.strftime('%H:%M:%S')}", flush=True)
            check(folder, [name for name in names if exercise(name).chapter in changed], seconds)
            now = saved(folder, lessons)  # the check may have made the two forms equal
        before = now
