"""What an exercise is. Those of a chapter are in `exercises/chNN_name.py`, as a list of these.

There are five kinds. All have an `id` ("3.2": chapter and number), a `title`, `minutes`, a
`difficulty` from 1 to 3, what it `trains`, a `task` in markdown, two `hints` (the idea, and the
shape line: what goes in and what comes out), and `why`: shown after passing, it says why the
solution works and which real mistake it avoids. A third hint is made from the solution.

`WriteBlock`
    The learner writes a function, class or method of the chapter, the `target` ("layer_norm",
    "Encoder", "Trainer.step"). Its body is emptied in the learner's folder, except for the methods
    of a class that `keep` names. `check` is the name of a check in `transformer.checks`, or a
    function of the implementation that raises an AssertionError. If the check is of something
    larger, `inside` makes that of what is written. The reference is the solution.

`Predict` and `ByHand`
    The learner assigns a value to `answer_3_2`. `solution` is a function without arguments that
    computes it: a number, a truth value, a text, or a list of these, which may be nested. Numbers
    are compared within `tolerance`. `mistakes` maps a sentence on a usual mistake to the answer
    that it gives. `run` is code to be run after a prediction; it shows what happens.

`FindBug`
    The learner repairs a member of the zoo, which becomes `mended_3_4`. Each `Bug` has the member's
    name and its symptom, what a user of the wrong model would observe. The first is the usual one;
    a folder that is started with a seed gets any of them. `target` is what is right.

`WriteTest`
    The learner writes `test_3_5(implementation)`, which must accept the `target` and refuse at
    least `at_least` of the zoo's members of `check`. `solution` is a test that does.

Solutions are ordinary functions: they are linted and typed, and the tests run them. The code of
`run`, and what a cell begins with (`given`), is text, because it becomes a cell of the notebook.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What all exercises have. `given` is code at the top of the cell, such as imports."""

    id: str
    title: str
    minutes: int
    difficulty: int
    trains: str
    task: str
    hints: tuple[str, str]
    why: str
    given: str = ""

    kind: ClassVar[str] = ""
    prefix: ClassVar[str] = ""

    @property
    def chapter(self) -> int:
        return int(self.id.partition(".")[0])

    @property
    def name(self) -> str:
        """Return the name under which the learner's module holds the answer."""
        return f"{self.prefix}_{self.id.replace('.', '_')}"


@dataclass(frozen=True, kw_only=True)
class WriteBlock(Exercise):
    """Write a function, class or method of the chapter."""

    target: str
    check: str | Callable[[Any], None]
    options: Mapping[str, Any] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    inside: Callable[[Any], Any] | None = None

    kind: ClassVar[str] = "write the block"

    @property
    def name(self) -> str:
        return self.target


@dataclass(frozen=True, kw_only=True)
class Answer(Exercise):
    """Give a value; `form` says what it looks like, such as "three numbers"."""

    form: str
    solution: Callable[[], Any]
    mistakes: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.01

    prefix: ClassVar[str] = "answer"


@dataclass(frozen=True, kw_only=True)
class Predict(Answer):
    """Say what will happen, then run it."""

    run: str = ""

    kind: ClassVar[str] = "predict, then run"


@dataclass(frozen=True, kw_only=True)
class ByHand(Answer):
    """Compute numbers on paper."""

    kind: ClassVar[str] = "by hand"


@dataclass(frozen=True)
class Bug:
    """A member of the zoo that is to be repaired, and what is observed of it."""

    member: str
    symptom: str


@dataclass(frozen=True, kw_only=True)
class FindBug(Exercise):
    """Repair a wrong implementation."""

    target: str
    bugs: tuple[Bug, ...]

    kind: ClassVar[str] = "find the bug"
    prefix: ClassVar[str] = "mended"

    def bug(self, seed: int = 0) -> Bug:
        """Return the bug of a folder: the first one for seed 0, else one drawn from the seed."""
        if not seed:
            return self.bugs[0]
        return random.Random(f"{seed} {self.id}").choice(self.bugs)


@dataclass(frozen=True, kw_only=True)
class WriteTest(Exercise):
    """Write a test that accepts what is right and refuses known mistakes."""

    target: str
    check: str
    at_least: int
    solution: Callable[[Any], None]

    kind: ClassVar[str] = "write the test"
    prefix: ClassVar[str] = "test"
