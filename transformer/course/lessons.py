"""The chapters as lessons: what each is called, what it needs, and where its text is.

The text of a chapter is its module, which is part of the package. The introduction has a notebook
only, which a clone of the repository holds, and an installed package does not.
"""

import ast
import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parent


@dataclass(frozen=True)
class Lesson:
    """A chapter: its number, title, notebook and module, the chapters it needs, and its minutes."""

    number: int
    title: str
    module: str
    needs: tuple[int, ...]
    minutes: int

    @property
    def notebook(self) -> str:
        """Return the notebook's name without its suffix, such as 03_attention."""
        return f"{self.number:02}_{self.module}"

    @property
    def path(self) -> Path:
        """Return the file that holds the text: the module, or the introduction's notebook."""
        module = PACKAGE / f"{self.module}.py"
        return module if self.number else REPOSITORY / "notebooks" / f"{self.notebook}.ipynb"

    def load(self) -> ModuleType:
        """Import the reference's module."""
        return importlib.import_module(f"transformer.{self.module}")


LESSONS = (
    Lesson(0, "Introduction", "introduction", (), 30),
    Lesson(1, "Embeddings", "embeddings", (0,), 25),
    Lesson(2, "Positional encoding", "positional_encoding", (1,), 35),
    Lesson(3, "Attention", "attention", (1, 2), 45),
    Lesson(4, "Multi-head attention", "multi_head", (3,), 40),
    Lesson(5, "Residual and norm", "residual_norm", (4,), 40),
    Lesson(6, "Feed-forward", "feed_forward", (4, 5), 25),
    Lesson(7, "Encoder", "encoder", (4, 5, 6), 40),
    Lesson(8, "Decoder with masking", "decoder", (3, 7), 45),
    Lesson(9, "The whole model", "model", (1, 7, 8), 45),
    Lesson(10, "Data", "data", (1, 8, 9), 45),
    Lesson(11, "Training", "training", (9, 10), 60),
    Lesson(12, "Inference", "inference", (9, 11), 60),
    Lesson(13, "Published weights", "pretrained", (9, 12), 50),
    Lesson(14, "Data parallelism", "distributed", (11,), 40),
    Lesson(15, "Fast training", "fast_training", (3, 8, 11), 45),
    Lesson(16, "Fast decoding", "fast_decoding", (12, 15), 45),
)
MODULES = frozenset(lesson.module for lesson in LESSONS)


def lesson(number: int) -> Lesson:
    """Return a chapter by its number; ValueError that names those there are."""
    for found in LESSONS:
        if found.number == number:
            return found
    known = ", ".join(str(other.number) for other in LESSONS)
    raise ValueError(f"there is no chapter {number}, only {known}")


def available() -> list[Lesson]:
    """List the chapters whose text this installation has."""
    return [found for found in LESSONS if found.path.exists()]


def has_figures() -> bool:
    """Return whether this is a clone of the repository, which has the figures."""
    return (REPOSITORY / "figures").is_dir()


@functools.cache
def parsed(module: str) -> ast.Module:
    """Return the syntax tree of a chapter's module."""
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def definition(tree: ast.AST, name: str) -> ast.FunctionDef | ast.ClassDef | None:
    """Return the last definition of a function, class or method, such as `Trainer.step`."""
    first, _, rest = name.partition(".")
    for node in reversed(getattr(tree, "body", [])):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == first:
            return definition(node, rest) if rest else node
    return None


def defining_module(name: str) -> str:
    """Return the chapter's module that defines a function or class; ValueError if none does."""
    for found in LESSONS:
        if found.number and definition(parsed(found.module), name):
            return found.module
    raise ValueError(f"no chapter defines {name}")


def source(module: str, name: str) -> str:
    """Return the reference's text of a function, class or method, with its decorators."""
    node = definition(parsed(module), name)
    if node is None:
        raise ValueError(f"transformer.{module} does not define {name}")
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = (PACKAGE / f"{module}.py").read_text(encoding="utf-8").splitlines()
    indent = node.col_offset
    return "\n".join(line[indent:] for line in lines[first - 1 : node.end_lineno]) + "\n"
