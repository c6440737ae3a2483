"""Run every awkward input of this folder, and print: case, wanted, got.

    python tests/cases/run.py

The status is 1 if anything differs. `*.txt` go to standard input of `translate`, with the course's
own translator; `*.en` and `*.it` are pairs to train on.
"""

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F

from transformer.checks.fixtures import small_model
from transformer.cli import main
from transformer.fast_decoding import PackedDecoder
from transformer.fast_training import chunked_cross_entropy
from transformer.inference import IncrementalDecoder
from transformer.texts import read_lines
from transformer.training import label_smoothed_loss

HERE = Path(__file__).parent
SMALL = "--d-model 16 --n-heads 2 --n-layers 1 --d-ff 16 --warmup 9 --vocab-size 60 --steps 2"


def command(*arguments: str, stdin: bytes = b"") -> tuple[int, list[str], list[str]]:
    """Run a command and return its status, and the lines of its output and of its errors."""
    out = io.StringIO()
    err = io.StringIO()
    with (
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main([*arguments])
    return status, out.getvalue().split("\n")[:-1], err.getvalue().splitlines()


def translated(name: str) -> tuple:
    """Return the translations of a file of lines, and what was said of lines with a problem."""
    status, lines, errors = command("translate", stdin=(HERE / name).read_bytes())
    said = [line.split(";")[0][:60] for line in errors if line.startswith(("warning", "error"))]
    return status, lines, said


def trained(name: str) -> tuple:
    """Train a moment on a pair of files; return the status and what was said of skipped pairs."""
    with tempfile.TemporaryDirectory() as folder:
        files = [str(HERE / f"{name}.en"), str(HERE / f"{name}.it")]
        out = ["--device", "cpu", "--out", folder]
        corpus = ["--corpus", "files", "--train", *files]
        status, _, errors = command("train", *corpus, *SMALL.split(), *out)
    said = [line for line in errors if line.startswith(("warning", "error"))]
    return status, [line.replace(f"{HERE}/", "") for line in said]


def error_of(run: Callable[[], object]) -> str:
    """Return the message of the error that a call raises."""
    try:
        return str(run())
    except (ValueError, OSError) as error:
        return str(error).replace(f"{HERE}/", "")


def losses() -> list[float]:
    """Return losses with a logit of minus infinity: of padding, plain and chunked; of a class."""
    p = torch.tensor([[0.0, 0.2, 0.7, 0.05, 0.05]] * 3)
    labels = torch.tensor([2, 1, 0])
    ruled_out = p.log()
    ruled_out[:, 0] = 0.0
    ruled_out[:, 3] = -torch.inf
    eye = torch.eye(5)
    chunked = chunked_cross_entropy(torch.zeros(3, 5), eye, p[0].log(), labels, 0, 0.4)
    found = [label_smoothed_loss(p.log(), labels, 0, 0.4), chunked]
    found += [label_smoothed_loss(ruled_out, labels, 0, 0.0)]
    found += [F.cross_entropy(ruled_out, labels, ignore_index=0)]
    return [round(loss.item(), 4) for loss in found]


def all_padding() -> list[bool]:
    """Return whether the logits of a row of padding are numbers, with and without packing."""
    model = small_model(vocab_size=20).eval().requires_grad_(False)
    src = torch.tensor([[3, 4, 2], [0, 0, 0]])
    found = []
    with torch.no_grad():
        for decoder in (IncrementalDecoder, PackedDecoder(model)):
            logits = decoder(model, src).step(torch.tensor([1, 1]))
            found.append(bool(logits.isfinite().all()))
    return found


def cases() -> Iterator[tuple[str, object, object]]:
    """Yield the name of each case, what is wanted and what came."""
    love = "ti amo"
    unknown = "warning: line 2 has no character that the vocabulary knows: "
    wanted = {
        "bom.txt": (0, ["ti amo molto", "la casa rossa"], []),
        "crlf.txt": (0, [love, "la casa rossa"], []),
        "lone_cr.txt": (0, [f"{love} la casa rossa", "il gatto"], []),
        "no_break_space.txt": (0, [love], []),
        "trailing_space.txt": (0, [love, "la casa rossa"], []),
        "blank_middle.txt": (0, [love, "", "la casa rossa"], []),
        "one_unknown_line.txt": (0, [love, "", "il gatto"], [unknown]),
        "one_long_line.txt": (
            0,
            ["il gatto", "", "il cane"],
            ["warning: line 2 has 601 tokens, the model's max_len is 512: "],
        ),
        "latin1.txt": (
            1,
            ["il gatto"],
            ["error: line 2 of standard input is not UTF-8 text: byte 8 is"],
        ),
    }
    for name, want in wanted.items():
        yield name, want, translated(name)
    damaged = error_of(lambda: read_lines(HERE / "damaged_middle.gz"))
    yield "damaged_middle.gz", "damaged_middle.gz is a damaged gzip file", damaged.split(" (")[0]
    blank = [read_lines(HERE / f"bom_blank.{side}") for side in ("en", "it")]
    yield "bom_blank", [["", "the cat"], ["", "il gatto"]], blank
    yield (
        "one_long_pair",
        (0, "1 of 39 pairs of train are skipped; the first is line 41 of"),
        first_words(trained("one_long_pair"), 64),
    )
    yield (
        "unknown_in_validation",
        (0, "1 of 2 pairs of val are skipped; the first is line 1 of"),
        first_words(trained("unknown_in_validation"), 60),
    )
    yield "a logit of -inf", [1.3856, 1.3856, 1.6509, 1.6509], losses()
    yield "a row of padding", [True, True], all_padding()


def first_words(found: tuple, count: int) -> tuple:
    """Return a status, and the beginning of the last warning without its label."""
    status, said = found
    return status, said[-1].removeprefix("warning: ")[:count].rstrip() if said else ""


if __name__ == "__main__":
    differ = 0
    for name, want, got in cases():
        same = want == got
        differ += not same
        print(f"{'same  ' if same else 'DIFFER'} {name}\n    wanted {want}\n    got    {got}")
    print(f"{differ} differ")
    sys.exit(differ > 0)
