"""Examine a learner's exercises in this process, which is a fresh one.

`python -m transformer.course.examine FOLDER IDS…` imports what is saved in the folder and writes
one line of JSON for each event into the file `--out`: which module is imported, which exercise is
tried, and its row. If this process dies, the events say where.
"""

import argparse
import contextlib
import io
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from transformer.checks.claims import seeded
from transformer.checks.harness import first_line
from transformer.course.bench import LESSON_OF, Bench
from transformer.course.diagnosis import diagnose
from transformer.course.exercise import Exercise, WriteBlock
from transformer.course.exercises import all_exercises, exercise
from transformer.course.folder import Folder
from transformer.course.judging import judge
from transformer.course.lessons import lesson
from transformer.course.memory import limit_memory
from transformer.course.rows import BROKEN, YOURS, Row
from transformer.course.untried import untried, used_by


class Examiner:
    """Examine the exercises of a folder, one by one."""

    def __init__(self, folder: Folder, bench: Bench):
        self.folder = folder
        self.bench = bench

    def row(self, task: Exercise) -> Row:
        """Return the state of an exercise, and the first claim that fails."""
        lesson_ = lesson(task.chapter)
        module = self.bench.load(lesson_.module)
        if module is None:
            return Row(task.id, BROKEN, self.bench.broken[lesson_.module])
        found = untried(task, module, self.folder)
        if found is not None:
            return self.explained(found)
        answer = getattr(module, task.name.partition(".")[0])
        remarks: list[str] = []
        claim = complaint(task, answer, remarks)
        if not claim:
            return self.explained(Row(task.id, YOURS, note="; ".join(remarks)))
        if isinstance(task, WriteBlock):
            culprit = self.culprit(task)
            if culprit:
                return Row(task.id, YOURS, note=culprit)
        return self.explained(Row(task.id, BROKEN, claim, note=self.broken_part(task, module)))

    def broken_part(self, task: Exercise, module: ModuleType) -> str:
        """Name a broken block of the same chapter that an answer uses, or nothing."""
        text = self.folder.module(lesson(task.chapter)).read_text(encoding="utf-8")
        used = used_by(task.name.partition(".")[0], text)
        for other in all_exercises():
            name = other.name.partition(".")[0]
            if isinstance(other, WriteBlock) and other.chapter == task.chapter and name in used:
                written = untried(other, module, self.folder) is None
                if written and complaint(other, getattr(module, name)):
                    return f"it uses your {other.id} ({other.name}), which is broken: begin there"
        return ""

    def diagnosis(self, row: Row) -> str:
        """Return which known mistake a broken answer is, or nothing."""
        task = exercise(row.exercise)
        module = self.bench.load(lesson(task.chapter).module)
        if row.state != BROKEN or module is None or untried(task, module, self.folder):
            return ""
        return diagnosed(task, getattr(module, task.name.partition(".")[0]))

    def explained(self, row: Row) -> Row:
        """Return the row with a word on the chapters that the library's stood in for."""
        needed = self.bench.stand_ins(lesson(exercise(row.exercise).chapter).module)
        reasons = [f"chapter {LESSON_OF[module].number} ({why})" for module, why in needed.items()]
        if not reasons or row.state not in (YOURS, BROKEN):
            return row
        note = f"with the library's {' and '.join(reasons)}"
        return replace(row, note=f"{note}; {row.note}" if row.note else note)

    def culprit(self, task: WriteBlock) -> str:
        """Name the earlier block because of which a block fails that is right by itself."""
        lesson_ = lesson(task.chapter)
        before = self.bench.imported(lesson_)
        if not before:
            return ""
        with self.bench.alone(lesson_) as module:
            answer = getattr(module, task.name.partition(".")[0], None)
            if answer is None or complaint(task, answer):
                return ""
        for other in all_exercises():
            if isinstance(other, WriteBlock) and other.chapter < task.chapter:
                module = sys.modules.get(f"{self.folder.package}.{lesson(other.chapter).module}")
                written = module is not None and untried(other, module, self.folder) is None
                if written and complaint(other, getattr(module, other.name.partition(".")[0])):
                    return f"right by itself, but your {other.id} ({other.name}) is broken"
        return "right by itself, but not with your earlier chapters"


def complaint(task: Exercise, answer: Any, remarks: list[str] | None = None) -> str:
    """Return what is wrong with an answer, or nothing; add to `remarks` what there is to say."""
    try:
        remark = quietly(judge, task, answer)
    except AssertionError as error:
        return located(str(error).strip() or "an assertion fails", error, answer)
    except SystemExit:
        return "it calls sys.exit"
    except MemoryError:
        return "it needs more memory than there is"
    except BaseException as error:  # a learner's code may raise anything
        return located(f"{type(error).__name__}: {first_line(error)}", error, answer)
    if remark and remarks is not None:
        remarks.append(remark)
    return ""


def located(claim: str, error: BaseException, answer: Any) -> str:
    """Return a claim with the line of the learner's at which the error was raised, if it was there.

    An error that a check has turned into a claim is the cause of that claim.
    """
    module = sys.modules.get(str(getattr(answer, "__module__", "")))
    file = getattr(module, "__file__", None)
    if file is None:
        return claim
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    mine = [frame for frame in frames if Path(frame.filename).parent == Path(file).parent]
    if not mine or not mine[-1].line:
        return claim
    place = f"{Path(mine[-1].filename).name}, line {mine[-1].lineno}"
    return f"{claim.rstrip('.: ')}. It comes from {place}: {mine[-1].line}"


def quietly(function: Callable, *args: Any) -> Any:
    """Call a function without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*args)


def diagnosed(task: Exercise, answer: Any) -> str:
    """Return which known mistake an answer is, or nothing."""
    try:
        return quietly(diagnose, task, answer)
    except BaseException:  # whatever it raises, the first failing claim is known
        return ""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m transformer.course.examine")
    parser.add_argument("folder", type=Path)
    parser.add_argument("exercises", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gigabytes", type=float, default=0.0)
    parser.add_argument("--broken", default="{}", help="modules that are given up, as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Examine what the command line names, and write the events."""
    options = parse(arguments)
    folder = Folder.open(options.folder)
    with open(options.out, "a", encoding="utf-8") as file:

        def tell(**event: Any) -> None:
            file.write(json.dumps(event) + "\n")
            file.flush()

        bench = Bench(folder.path, folder.package, lambda module: tell(module=module))
        for module, reason in json.loads(options.broken).items():
            bench.replace(module, reason)
        limit_memory(options.gigabytes)
        examiner = Examiner(folder, bench)
        for task in map(exercise, options.exercises):
            bench.load(lesson(task.chapter).module)
            tell(exercise=task.id)
            with seeded(options.seed):
                row = examiner.row(task)
                tell(row=asdict(row))
                # What a learner's code does in a diagnosis must not cost the row its claim.
                diagnosis = examiner.diagnosis(row)
                if diagnosis:
                    tell(row=asdict(replace(row, diagnosis=diagnosis)))


if __name__ == "__main__":
    main()
