"""What `course` prints: tables, hints and solutions."""

import ast
import inspect
import textwrap
from collections.abc import Sequence
from itertools import groupby

from transformer.course import rows as states
from transformer.course.exercise import Answer, Exercise, FindBug, WriteBlock, WriteTest
from transformer.course.exercises import exercise
from transformer.course.folder import State
from transformer.course.hunts import bug_text
from transformer.course.lessons import lesson, source
from transformer.course.rows import Row
from transformer.course.stub_text import task_text

WIDTH = 96
TITLE = 44
HINTS = 3
REASONS = 5


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text, by chapter, each failing one with its first failing claim."""
    lines = []
    for number, group in groupby(rows, key=lambda row: exercise(row.exercise).chapter):
        lines.append(f"Chapter {number}, {lesson(number).title}")
        for row in group:
            lines += row_lines(row)
    return "\n".join([*lines, "", total(rows)])


def row_lines(row: Row) -> list[str]:
    """Return the line of an exercise, and what there is to say about it."""
    task = exercise(row.exercise)
    title = f"{task.title} ({task.kind})"
    title = title if len(title) <= TITLE + 14 else f"{title[: TITLE + 13]}…"
    lines = [f"  {row.exercise:<5} {title:<{TITLE + 14}} {task.minutes:>3} min  {row.state}"]
    for text in filter(None, (row.claim, row.diagnosis, row.note)):
        lines += indented(text, 8)
    return lines


def indented(text: str, columns: int) -> list[str]:
    """Break a text into lines that begin with so many spaces."""
    space = " " * columns
    return textwrap.wrap(text, WIDTH, initial_indent=space, subsequent_indent=space)


def total(rows: Sequence[Row]) -> str:
    """Return how many exercises are in each state, and the share of the blocks that is theirs."""
    counted = states.count(rows)
    others = [f"{n} {state}" for state, n in counted.items() if n and state != states.YOURS]
    parts = [f"{counted[states.YOURS]} of {len(rows)} yours", *others]
    return f"{' · '.join(parts)} · {states.share(rows)} % of the blocks are yours"


def reasons(names: Sequence[str]) -> str:
    """Return why the solutions of these exercises work; of many, only of the first ones."""
    parts = [f"{name} is right.\n{exercise(name).why.strip()}" for name in names[:REASONS]]
    if len(names) > REASONS:
        more = f"{len(names) - REASONS} more are right"
        parts.append(f"{more}. `course reveal ID` says why a solution works.")
    return "\n\n".join(parts)


# --- hints ----------------------------------------------------------------------------------------


def hint(name: str, state: State) -> str:
    """Return the next hint of an exercise, and count it; after the third, the third again."""
    task = exercise(name)
    number = min(state.hints.get(name, 0) + 1, HINTS)
    state.hints[name] = number
    if number == HINTS:
        return solution(name)
    label = ("the idea", "the shapes")[number - 1]
    return f"Hint {number} of {HINTS} for {name}, {label}\n\n{wrapped(task.hints[number - 1])}"


def wrapped(text: str) -> str:
    """Return paragraphs in lines of readable length."""
    return "\n\n".join(textwrap.fill(part, WIDTH) for part in text.strip().split("\n\n"))


def solution(name: str) -> str:
    """Return the solution of an exercise, and why it works."""
    task = exercise(name)
    return f"The solution of {name}\n\n{solution_text(task).rstrip()}\n\n{task.why.strip()}"


def solution_text(task: Exercise) -> str:
    """Return the code that solves an exercise."""
    if isinstance(task, WriteBlock | FindBug):
        text = source(lesson(task.chapter).module, task.target)
        return text if isinstance(task, WriteBlock) else text.replace(task.target, task.name, 1)
    if isinstance(task, WriteTest):
        text = without_types(inspect.getsource(task.solution))
        return f"{task.given}\n\n\n{text}" if task.given else text
    assert isinstance(task, Answer)
    return f"{inspect.getsource(task.solution)}\n{task.name} = {shown(task.solution())}"


def without_types(text: str) -> str:
    """Return a function without the types in its signature, whose names a cell may not have."""
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    names = ", ".join(argument.arg for argument in node.args.args)
    body = text.splitlines()[node.body[0].lineno - 1 :]
    return "\n".join([f"def {node.name}({names}):", *body]) + "\n"


def shown(value: object) -> str:
    """Return a value as it can be written down, numbers with three decimals."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:.3f}" if isinstance(value, float) else repr(value)


def overview(task: Exercise, state: State) -> str:
    """Return an exercise's task, for the command line."""
    head = f"{task.id} · {task.title} ({task.kind}, {task.minutes} minutes)"
    text = f"{head}\n\n{task_text(task, state.seed)}"
    if isinstance(task, FindBug):
        return f"{text}\n\n{bug_text(task, state.seed)}"
    return text
