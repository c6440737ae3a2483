"""A picture of one translation that can be walked through: attention, decoding steps, the beam.

`explore` translates a sentence and returns an `Explorer`, which a notebook shows and which can be
saved as one HTML file without references to anything else. What it shows was recorded while the
library's own search ran, so it is what the model computed.

`write_live` writes a folder for a web server, in which the same picture follows a model that runs
in the browser.

| module | what it does |
|---|---|
| `recording` | watches attention and a beam search at work |
| `beam_tree` | makes a tree of what a beam search tried |
| `translation` | collects what the page shows, as JSON |
| `figure` | draws the still picture for places where scripts do not run |
| `explorer` | puts page, style, scripts and JSON together |
| `live` | writes the folder of the live page, with the model as ONNX graphs |
| `npm` | fetches what runs the model in a browser |
"""

from transformer.explorer.explorer import Explorer, explore
from transformer.explorer.live import write_live

__all__ = ["Explorer", "explore", "write_live"]
