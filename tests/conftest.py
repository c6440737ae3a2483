"""What every test shares."""

import os
import threading
from pathlib import Path

import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent

# Before anything is imported: plain `pytest` trains and caches where `make test` does, and never opens a window.
os.environ.setdefault("TRANSFORMER_CACHE", str(ROOT / ".cache" / "transformer"))
os.environ.setdefault("MPLBACKEND", "Agg")
# The default lock is shared with forked processes; a mutant that is killed while it holds it would stop all after it.
tqdm.set_lock(threading.RLock())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give every test the same random numbers, in any order and on any worker."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def types_are_checked(pytestconfig: pytest.Config) -> bool:
    """Whether jaxtyping and beartype check the package's signatures in this run."""
    return bool(pytestconfig.getoption("--jaxtyping-packages"))
