"""What every test shares."""

import os
import shutil
import threading
from pathlib import Path

import matplotlib
import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent

LONG = {
    "test_cli",
    "test_composes",
    "test_course_check",
    "test_course_diagnosis",
    "test_course_failures",
    "test_course_folder",
    "test_course_notebooks",
    "test_course_translator",
    "test_cpu",
    "test_ctranslate2",
    "test_distributed",
    "test_engines",
    "test_explorer_browser",
    "test_explorer_live",
    "test_fast_decoding",
    "test_fine_tuning",
    "test_fuzz",
    "test_grammar",
    "test_inference_details",
    "test_kill",
    "test_lab_browser",
    "test_many_processes",
    "test_newcomer",
    "test_nothing_changes",
    "test_onnx",
    "test_pretrained",
    "test_recipes",
    "test_run_folder",
    "test_tokenised",
    "test_translator",
}
"""Files that train, export, trace, compile or start processes. All others are `make quick`."""

LONGEST = (
    "test_cli",
    "test_course_check",
    "test_engines",
    "test_nothing_changes",
    "test_grammar",
    "test_composes",
    "test_many_processes",
    "test_distributed",
    "test_course_notebooks",
)
"""The files of `LONG` that take longest, in the order in which they begin."""

# Before the package is imported: plain `pytest` trains and caches where `make test` does.
os.environ.setdefault("TRANSFORMER_CACHE", str(ROOT / ".cache" / "transformer"))
matplotlib.use("Agg")
# The default lock is shared with forked processes; a mutant that is killed while it holds it would
# stop all after it.
tqdm.set_lock(threading.RLock())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tests, skip what needs a GPU where there is none, and put long files first.

    Notebooks come before all.
    """
    import torch

    no_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if item.path.stem not in LONG and not marks & {"slow", "translator"}:
            item.add_marker("quick")
        if "gpu" in marks and not torch.cuda.is_available():
            item.add_marker(no_gpu)
    items.sort(key=lambda item: turn(item.path))


def turn(file: Path) -> int:
    """Return when a file is tested: notebooks and long files first, quick ones last."""
    if file.suffix == ".ipynb":
        return -1
    if file.stem in LONGEST:
        return LONGEST.index(file.stem)
    return len(LONGEST) + (file.stem not in LONG)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give every test the same random numbers, in any order and on any worker."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of a test open no window, either.

    Kernels of notebooks have the environment of this process, too, but draw as in Jupyter.
    """
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def types_are_checked(pytestconfig: pytest.Config) -> bool:
    """Whether jaxtyping and beartype check the package's signatures in this run."""
    return bool(pytestconfig.getoption("--jaxtyping-packages"))


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner's folder as it is written; to be copied, not changed."""
    from transformer.course.workbook import start

    folder, _ = start(tmp_path_factory.mktemp("started") / "mine")
    return folder.path


@pytest.fixture
def mine(started: Path, tmp_path: Path) -> Path:
    """A learner's folder of the test's own."""
    return Path(shutil.copytree(started, tmp_path / "mine"))
