"""The live page: a folder for a web server, in which the model runs in the browser."""

import json
import shutil
import subprocess
from dataclasses import asdict
from html import escape
from pathlib import Path

from transformer.explorer.explorer import SCRIPTS, asset, explore, filled, json_for_html, scripts
from transformer.explorer.figure import still
from transformer.explorer.graphs import GRAPHS, write_graphs
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
    parts = Path(runtime) if runtime else fetched_runtime()
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


def fetched_runtime() -> Path:
    """Return the folder of onnxruntime-web's files in the cache; npm fetches them if it is empty.

    Raises ValueError if that fails.
    """
    home = cache_dir() / "npm" / RUNTIME.replace("@", "-")
    found = home / "node_modules" / "onnxruntime-web" / "dist"
    if all((found / name).is_file() for name in RUNTIME_FILES):
        return found
    npm = shutil.which("npm")
    if not npm:
        raise ValueError(f"the live page needs {RUNTIME}: install npm, or give its dist as runtime")
    home.mkdir(parents=True, exist_ok=True)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(home)]
    done = subprocess.run([npm, "install", *options, RUNTIME], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"npm could not install {RUNTIME}: {done.stderr.strip()[-300:]}")
    return found
