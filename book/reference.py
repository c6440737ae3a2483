"""The reference: a page for each module, made from its signatures and docstrings.

Docstrings are Markdown, so they go into Sphinx's directives as they are. A name in backquotes that
the reference has becomes a link.
"""

import ast
import functools
import re
from collections.abc import Callable, Iterable

from book.definitions import (
    ROOT,
    Definition,
    define,
    module_doc,
    parsed,
    public_names,
    targets,
)
from transformer.course.lessons import LESSONS

CHAPTERS = {lesson.module: lesson for lesson in LESSONS if lesson.number}
HEAD = """# Reference

Every public name of the package, by module. Signatures are shown as they are written: a type such
as `Float[Tensor, "b t d_model"]` has the dtype and the axes of a tensor, and
{py:obj}`transformer.AXES` says what each letter stands for. A `#` marks an axis that
may have size 1, and `...` any number of axes. The modules of chapters 1 to 16 are the chapters
themselves; for their derivation, follow the link at the top of each page.

"""
HIDDEN = {"cli"}
"""Modules that are no library: the command line has a page of its own."""


def described() -> dict[str, str]:
    """Return what each module holds, in the words and the order of the README's table."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("| module | what it holds |")[2].partition("\n\n")[0]
    found = {}
    for names, about in re.findall(r"^\| (`.+?) \| (.+?) \|$", table, re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), about)
    return found


def pages() -> dict[str, str]:
    """Return the text of each page by its name; the index is `api/index`."""
    modules = [name for name in described() if name not in HIDDEN]
    found = {f"api/{name}": page(f"transformer.{name}") for name in modules}
    found["api/transformer"] = page("transformer")
    found["api/zoo"] += zoo()
    found["api/index"] = index(modules)
    return found


def index(modules: Iterable[str]) -> str:
    """Return the page that lists the modules."""
    rows = ["| module | what it holds |", "|---|---|"]
    rows += ["| [`transformer`](transformer.md) | the glossary of axes, and the version |"]
    about = described()
    rows += [f"| [`{name}`]({name}.md) | {about[name]} |" for name in modules]
    toc = "\n".join(f"{name} <{name}>" for name in ["transformer", *modules])
    return f"{HEAD}{chr(10).join(rows)}\n\n```{{toctree}}\n:hidden:\n\n{toc}\n```\n"


def page(module: str) -> str:
    """Return the page of a module."""
    short = module.rpartition(".")[2]
    lines = [f"# {module}", "", f":::{{py:module}} {module}\n:::", ""]
    if short in CHAPTERS:
        lesson = CHAPTERS[short]
        link = f"[chapter {lesson.number}, {lesson.title}](../notebooks/{lesson.notebook}.ipynb)"
        lines += [f"The code of {link}, as a module.", ""]
    else:
        lines += [linked(module_doc(module), module), ""]
    for name in public_names(module):
        found = define(module, name)
        if (
            found
            and (found.doc or found.kind != "data" or short == "transformer")
            and not is_reexport(module, name)
        ):
            lines += [directive(found, module), ""]
    return "\n".join(lines)


def is_reexport(module: str, name: str) -> bool:
    """Return whether the package's own page repeats a name that a module's page has."""
    return module == "transformer" and name[0].isupper() and not name.isupper()


def directive(found: Definition, module: str, colons: int = 5) -> str:
    """Return a definition as a directive of Sphinx's domain for Python."""
    kind = "method" if found.kind in ("classmethod", "staticmethod") else found.kind
    options = [f":{found.kind}:"] if kind != found.kind else []
    text = found.signature
    if kind in ("data", "property"):
        options += [f":type: {text}"] if text else []
        text = ""
    body = [linked(found.doc, module)] if found.doc else []
    if found.bases:
        body.insert(0, f"Bases: {', '.join(f'`{base}`' for base in found.bases)}\n")
    body += [directive(member, module, colons - 1) for member in found.members]
    fence = ":" * colons
    head = "\n".join([f"{fence}{{py:{kind}}} {found.name}{text}", *options])
    return f"{head}\n\n{chr(10).join(body)}\n{fence}\n"


@functools.cache
def known() -> dict[str, str]:
    """Return the full name of each documented name; names that two modules have are left out."""
    found: dict[str, str] = {}
    twice = set()
    for short in [*described()]:
        for name in public_names(f"transformer.{short}"):
            if name in found:
                twice.add(name)
            found[name] = f"transformer.{short}.{name}"
    return {name: full for name, full in found.items() if name not in twice and len(name) > 2}


def linked(text: str, module: str) -> str:
    """Return a docstring in which documented names in backquotes are links."""
    own = {name: f"{module}.{name}" for name in public_names(module) if define(module, name)}
    names = known() | own

    def link(found: re.Match[str]) -> str:
        name = found[1]
        first, _, rest = name.partition(".")
        full = names.get(name) or (f"{names[first]}.{rest}" if rest and first in names else "")
        return f"{{py:obj}}`{name} <{full}>`" if full else found[0]

    lines = text.splitlines()
    return "\n".join(line if line.startswith("    ") else prose(line, link) for line in lines)


def prose(line: str, link: Callable[[re.Match[str]], str]) -> str:
    """Return a line with links; outside of code, a token such as <s> is no HTML."""
    parts = re.split(r"(`+[^`]*`+)", line)
    names = [re.sub(r"^`([A-Za-z_][\w.]*)`$", link, part) for part in parts[1::2]]
    plain = [part.replace("<", "\\<") for part in parts[::2]]
    return "".join(a + b for a, b in zip(plain, [*names, ""]))


def zoo() -> str:
    """Return the zoo's members as a table, by chapter."""
    rows = ["", "## The members", "", "| member | the mistake | caught by |", "|---|---|---|"]
    for path in sorted((ROOT / "transformer" / "zoo").glob("*/*.py")):
        if path.stem == "__init__":
            continue
        module = f"transformer.zoo.{path.parent.name}.{path.stem}"
        sentence = linked(" ".join(module_doc(module).split()), module).replace("|", "\\|")
        check = next(
            ast.literal_eval(node.value)
            for node in parsed(module).body
            if isinstance(node, ast.Assign) and targets(node) == ["CHECK"]
        )
        check = f"{{py:obj}}`{check} <transformer.checks.{check}>`"
        rows.append(f"| `{path.parent.name}.{path.stem}` | {sentence} | {check} |")
    return "\n".join(rows) + "\n"
