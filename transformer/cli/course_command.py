"""`python -m transformer course`: a folder of the learner's own, its checks and its hints."""

import argparse
from pathlib import Path

from transformer.cli.options import Commands


def add_course(commands: Commands) -> None:
    """Add the command `course` and its own commands."""
    command = commands.add_parser("course", help="learn by doing: exercises, checks and hints")
    inner = command.add_subparsers(dest="course_command", required=True)
    add_start(inner)
    add_checks(inner)
    add_hints(inner)
    add_grade(inner)


def add_start(inner: Commands) -> None:
    """Add the command that writes a folder."""
    start = inner.add_parser("start", help="write a folder of your own, or bring it up to date")
    start.add_argument("name", type=Path, help="its name, such as mine: it becomes a package")
    start.add_argument(
        "--seed", type=int, default=0, help="choose the bugs to be found (default: the usual ones)"
    )
    start.set_defaults(run=run_start)


def add_checks(inner: Commands) -> None:
    """Add the commands that check."""
    check = inner.add_parser("check", help="check what is saved, in a fresh process")
    watch = inner.add_parser("watch", help="check whenever you save; Ctrl-C ends it")
    status = inner.add_parser("status", help="check everything: what is yours, what is not")
    following = inner.add_parser("next", help="show the first exercise that is not yours yet")
    for command in (check, watch):
        command.add_argument(
            "what", nargs="*", help="chapters and exercises, such as 3 or 3.2 (default: all)"
        )
    for command in (check, watch, status, following):
        add_folder(command)
        command.add_argument(
            "--seconds", type=float, default=60.0, help="for one exercise (default: 60)"
        )
    check.set_defaults(run=run_check)
    watch.set_defaults(run=run_watch)
    status.set_defaults(run=run_check, what=[])
    following.set_defaults(run=run_next)


def add_hints(inner: Commands) -> None:
    """Add the commands that help."""
    hint = inner.add_parser("hint", help="give the next of three hints")
    reveal = inner.add_parser("reveal", help="show the solution")
    for command in (hint, reveal):
        command.add_argument("exercise", help="such as 3.2")
        add_folder(command)
    hint.set_defaults(run=run_hint)
    reveal.set_defaults(run=run_reveal)


def add_grade(inner: Commands) -> None:
    """Add the command for instructors."""
    grade = inner.add_parser("grade", help="for instructors: grade folders of learners")
    grade.add_argument("folders", nargs="+", type=Path)
    grade.add_argument("--csv", type=Path, help="file for a row of each exercise")
    grade.add_argument("--junit", type=Path, help="file for a test report in JUnit's XML")
    grade.add_argument(
        "--seed", type=int, default=1, help="checks draw other numbers and sizes (default: 1)"
    )
    grade.add_argument("--seconds", type=float, default=60.0, help="for one exercise (default: 60)")
    grade.add_argument(
        "--gigabytes", type=float, default=4.0, help="of memory for each folder (default: 4)"
    )
    grade.set_defaults(run=run_grade)


def add_folder(command: argparse.ArgumentParser) -> None:
    """Add the option that names the folder."""
    command.add_argument("--folder", type=Path, help="(default: the one in or around this folder)")


# --- what they do ---------------------------------------------------------------------------------


def run_start(options: argparse.Namespace) -> None:
    """Write the folder, and say what was done."""
    from transformer.course.commands import started

    print(started(options.name, options.seed))


def run_check(options: argparse.Namespace) -> int:
    """Print the table; status 1 if something is broken or missing."""
    from transformer.course.commands import check
    from transformer.course.folder import find

    return check(find(options.folder), options.what, options.seconds)


def run_watch(options: argparse.Namespace) -> None:
    """Check again and again."""
    from transformer.course.folder import find
    from transformer.course.watching import watch

    watch(find(options.folder), options.what, options.seconds)


def run_next(options: argparse.Namespace) -> None:
    """Print the first exercise that is not the learner's."""
    from transformer.course.commands import following
    from transformer.course.folder import find

    print(following(find(options.folder), options.seconds))


def run_hint(options: argparse.Namespace) -> None:
    """Print a hint, and remember it."""
    from transformer.course.folder import find
    from transformer.course.report import hint

    folder = find(options.folder)
    print(hint(options.exercise, folder.state))
    folder.save()


def run_reveal(options: argparse.Namespace) -> None:
    """Print a solution."""
    from transformer.course.report import solution

    print(solution(options.exercise))


def run_grade(options: argparse.Namespace) -> None:
    """Grade the folders."""
    from transformer.course.grade import grade
    from transformer.course.running import Limits

    limits = Limits(options.seconds, options.gigabytes, options.seed)
    grade(options.folders, limits, options.csv, options.junit)
