"""The page: one HTML file with its style, its scripts and the recorded translation."""

import base64
import json
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformer.explorer.figure import still
from transformer.explorer.translation import record_translation
from transformer.files import atomic_write
from transformer.translator import Translator

SCRIPTS = (
    *("colours", "numbers", "elements", "keyboard"),
    *("ribbons", "heads", "matrix", "film", "beam", "explorer"),
)
"""The scripts of the views, in the order in which they are put together."""
HEIGHT = 780
"""Pixels that the page gets in a notebook; it scrolls inside."""


def asset(name: str) -> str:
    """Return the text of a file of the folder `page`."""
    return (files("transformer.explorer") / "page" / name).read_text(encoding="utf-8")


def scripts(*names: str) -> str:
    """Return scripts as one function of their own, so that no name leaks into the page."""
    code = "\n".join(asset(f"{name}.js") for name in names)
    return f'(() => {{\n"use strict";\n{code}}})();\n'


def filled(template: str, **parts: str) -> str:
    """Return a template in which each `<!-- name -->` is replaced by a part."""
    for name, part in parts.items():
        template = template.replace(f"<!-- {name} -->", part)
    return template


def json_for_html(value: Any) -> str:
    """Return compact JSON that can stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


@dataclass(frozen=True)
class Explorer:
    """A recorded translation that can be walked through; a notebook shows it as a page.

    `translation` is what `record_translation` returned.
    """

    translation: dict[str, Any]

    def html(self) -> str:
        """Return the page: a whole HTML document that refers to nothing else."""
        source = self.translation["source"]["text"]
        target = self.translation["target"]["text"]
        return filled(
            asset("page.html"),
            title=f"{escape(source)} → {escape(target)}",
            style=asset("style.css"),
            views=asset("views.html"),
            still=still(self.translation),
            data=json_for_html(self.translation),
            scripts=scripts(*SCRIPTS, "start"),
        )

    def save(self, path: str | Path) -> Path:
        """Write the page and return its path; OSError if it cannot be written."""
        atomic_write(path, self.html().encode())
        return Path(path)

    def _repr_html_(self) -> str:
        """Return the page in a frame, and behind it the picture for places without frames."""
        picture = base64.b64encode(still(self.translation).encode()).decode("ascii")
        alt = f"{self.translation['source']['text']} → {self.translation['target']['text']}"
        return (
            '<div style="position:relative">'
            f'<img alt="Cross-attention: {escape(alt)}" src="data:image/svg+xml;base64,{picture}">'
            f'<iframe title="Explorer: {escape(alt)}" srcdoc="{escape(self.html())}" style="'
            f"position:absolute;inset:0;width:100%;height:{HEIGHT}px;border:0;border-radius:12px"
            f'"></iframe><div style="height:{HEIGHT}px"></div></div>'
        )

    def __repr__(self) -> str:
        """Return the sentence and its translation."""
        source = self.translation["source"]["text"]
        return f"Explorer({source!r} → {self.translation['target']['text']!r})"


def explore(
    translator: Translator, text: str, beam_size: int = 5, length_penalty: float = 1.0
) -> Explorer:
    """Translate a text by beam search and return what happened, to be walked through.

    Raises ValueError for a text that is blank, unknown or too long, and for a beam below 1.
    """
    model = translator.model
    found = record_translation(model, translator.tokenizer, text, beam_size, length_penalty)
    return Explorer(found)
