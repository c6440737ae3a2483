"""The live page: a folder for a web server, in which the model runs in the browser."""

import json
import shutil
from dataclasses import asdict
from html import escape
from pathlib import Path

from transformer.explorer.explorer import SCRIPTS, asset, explore, filled, json_for_html, scripts
from transformer.explorer.figure import still
from transformer.explorer.graphs import GRAPHS, write_graphs
from transformer.explorer.npm import npm_package
from transformer.files import atomic_folder, cache_dir
from transformer.translator import Translator

RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = (
    "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
"""The part of ONNX Runtime that runs on a CPU in a browser."""
LIVE_FILES = ("index.html", "config.json", "tokenizer.json", *GRAPHS, *RUNTIME_FILES)
LIVE_SCRIPTS = (*SCRIPTS, "tokenizer", "model", "search", "live")


def write_live(
    translator: Translator,
    folder: str | Path,
    sentence: str = "I love you very much",
    runtime: str | Path | None = None,
) -> Path:
    """Write a folder with a page in which the translator runs, and return its path.

    The page shows the recorded translation of `sentence` until something is typed. Any web server
    will do (`python -m http.server`); nothing is asked of another host. `runtime` is a folder with
    onnxruntime-web's files; without it, npm fetches them once. A folder of this kind is replaced.
    Raises ValueError if a package or npm is missing, the sentence cannot be translated, or the
    folder holds something else; OSError if it cannot be written.
    """
    folder = Path(folder).resolve()
    page = live_page(translator, sentence)
    if runtime:
        parts = Path(runtime)
    else:
        needed = [f"dist/{name}" for name in RUNTIME_FILES]
        instead = ", or give its dist as runtime"
        parts = npm_package(RUNTIME, cache_dir() / "npm", needed, instead) / "dist"
    missing = [name for name in RUNTIME_FILES if not (parts / name).is_file()]
    if missing:
        raise ValueError(f"runtime {parts} has no {', '.join(missing)}: it is a dist of {RUNTIME}")
    model = translator.model
    parameters = sum(x.numel() for x in model.parameters())
    about = asdict(model.config) | {"parameters": parameters}
    with atomic_folder(folder, LIVE_FILES) as draft:
        write_graphs(model, draft)
        (draft / "index.html").write_text(page, encoding="utf-8")
        (draft / "config.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
        translator.tokenizer.save(str(draft / "tokenizer.json"))
        for name in RUNTIME_FILES:
            shutil.copyfile(parts / name, draft / name)
    return folder


def live_page(translator: Translator, sentence: str) -> str:
    """Return the HTML of the live page, with a recorded translation."""
    translation = explore(translator, sentence).translation
    return filled(
        asset("live.html"),
        style=asset("style.css"),
        views=asset("views.html"),
        sentence=escape(translation["source"]["text"]),
        still=still(translation),
        data=json_for_html(translation),
        scripts=scripts(*LIVE_SCRIPTS),
    )
