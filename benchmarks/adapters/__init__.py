"""One small file for each system.

To add one, write a subclass of `System` in a file here and name it below.
"""

from importlib import import_module

from benchmarks.adapters.base import Setting, System

SYSTEMS = {
    "ours": "ours:Ours",
    "torch.nn": "torch_nn:TorchNN",
    "x-transformers": "xtransformers:XTransformers",
    "hf-marian": "hf_marian:Marian",
    "ctranslate2-fp32": "ct2:CTranslate2",
    "ctranslate2-int8": "ct2:CTranslate2Int8",
}


def find(name: str) -> type[System]:
    """Return the adapter of a system; ImportError if its packages are not installed."""
    module, _, adapter = SYSTEMS[name].partition(":")
    return getattr(import_module(f"benchmarks.adapters.{module}"), adapter)


__all__ = ["SYSTEMS", "Setting", "System", "find"]
