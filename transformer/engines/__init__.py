"""Engines: what searches for translations. All have the same method, `Engine.search_all`.

- `PyTorchEngine(model)` is the default of `Translator`.
- `CTranslate2Engine(folder, config)` runs what `export_ctranslate2` wrote.
- `OnnxEngine(folder, config)` runs what `export_onnx` wrote.

The packages of the last two are optional, and are imported when such an engine is made.
"""

from transformer.engines.ctranslate2 import CTranslate2Engine, export_ctranslate2
from transformer.engines.exporter import export
from transformer.engines.onnx import OnnxEngine, export_onnx
from transformer.engines.protocol import Engine, Group, Hypothesis, Search
from transformer.engines.pytorch import PyTorchEngine

__all__ = [
    "CTranslate2Engine",
    "Engine",
    "Group",
    "Hypothesis",
    "OnnxEngine",
    "PyTorchEngine",
    "Search",
    "export",
    "export_ctranslate2",
    "export_onnx",
]
