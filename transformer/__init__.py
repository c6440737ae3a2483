"""The encoder-decoder of "Attention Is All You Need" (Vaswani et al. 2017), in PyTorch and einops.

Each chapter of the course is a module: `transformer/attention.py` is
`notebooks/03_attention.ipynb`. Prose, einops patterns and type signatures share one glossary of
axis letters, `AXES`.
"""

import os
import sys
from pathlib import Path

# A program of this package, `python -m transformer` or `transformer-course`, and not somebody who
# imports it. Threads that have nothing to do wait actively for up to 100 milliseconds, and when
# other programs need the processor they wait for one another most of the time. OpenMP reads the
# setting when PyTorch is imported.
if sys.argv[:1] == ["-m"] or Path(sys.argv[0] if sys.argv else "").stem == "transformer-course":
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

AXES = {
    "b": "batch: one sentence",
    "t": "position in a sentence",
    "q": "query position: who asks",
    "k": "key position: who is asked",
    "h": "head",
    "d_model": "feature of a token's vector",
    "d_head": "feature of a head's query or key: d_model / heads, the paper's d_k",
    "d_v": "feature of a value; in the model d_head",
    "d_ff": "hidden feature of the feed-forward block",
    "d_in": "feature that goes into a linear layer",
    "d_out": "feature that comes out of a linear layer",
    "vocab": "entry of the vocabulary",
    "beam": "one of several hypotheses for a sentence",
    "c": "candidate: an extension of a hypothesis",
    "r": "row: hypotheses of all sentences, one after another",
}

__version__ = "0.1.0"

from transformer.model import Config, Transformer  # noqa: E402

__all__ = ["AXES", "Config", "Transformer", "__version__"]
