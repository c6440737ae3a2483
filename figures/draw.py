"""Draw the diagrams of the course.

`python figures/draw.py [name ...]` writes figures/<name>.svg, by default all of them.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ancestors
import blocks
import chunks
import decoding
import hero
import layers
import prerequisites
import sublayers
from architecture import LIT, architecture
from canvas import Canvas

FOLDER = Path(__file__).parent
FIGURES: dict[str, Callable[[], Canvas]] = {
    **{f"architecture_{chapter:02}": partial(architecture, chapter) for chapter in LIT},
    **blocks.DIAGRAMS,
    **sublayers.DIAGRAMS,
    **layers.DIAGRAMS,
    **decoding.DIAGRAMS,
    **chunks.DIAGRAMS,
    **ancestors.DIAGRAMS,
    **hero.DIAGRAMS,
    **prerequisites.DIAGRAMS,
}


def main(names: list[str]) -> int:
    """Write the named figures, or all of them; return the process's exit status."""
    unknown = sorted(set(names) - set(FIGURES))
    if unknown:
        print(
            f"no figure named {', '.join(unknown)}; there are: {', '.join(FIGURES)}",
            file=sys.stderr,
        )
        return 2
    for name in names or FIGURES:
        (FOLDER / f"{name}.svg").write_text(FIGURES[name]().svg(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
