"""Nothing that a run's folder holds is lost, whether a run is refused, replaced or killed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from killing import Killed, killed_at, kills
from test_recipes import SIZES, make_corpus, preset

from transformer.data import load_tokenizer
from transformer.engines import export
from transformer.engines.exporter import model_folder
from transformer.model import load_model
from transformer.recipes import checkpoints, fit, only_run, read_run
from transformer.recipes.run_folder import STAMP

OLD = preset(steps=3, validate_every=1)
NEW = replace(preset(steps=2, validate_every=1, sizes=SIZES | dict(d_ff=24)), vocab_size=37)
"""Another size and another vocabulary, so that no part of the new model fits the old ones."""


def train_old(folder: Path) -> None:
    fit(make_corpus(), folder, OLD)


def train_new(folder: Path) -> None:
    fit(make_corpus(), folder, NEW)


def resume_old(folder: Path) -> None:
    fit(make_corpus(), folder, preset(steps=5, validate_every=1), resume=checkpoints(folder)[-1])


def go_on_from_the_older(folder: Path) -> None:
    fit(make_corpus(), folder, preset(steps=4, validate_every=2), resume=checkpoints(folder)[0])


def export_old(folder: Path) -> None:
    export(folder, "ctranslate2")


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A folder that a run has left, with the stamp of the course's translator."""
    folder = tmp_path_factory.mktemp("runs") / "old"
    train_old(folder)
    (folder / STAMP).touch()
    return folder


@pytest.fixture
def folder(old: Path, tmp_path: Path) -> Path:
    """A copy of the old run's folder."""
    return Path(shutil.copytree(old, tmp_path / "folder"))


def translator_parts(folder: Path) -> tuple[int, int, int]:
    """Return three sizes that tell which run the model, its config and its tokenizer are of."""
    model = load_model(folder)
    tokenizer = load_tokenizer(folder / "tokenizer.json", model.config.vocab_size)
    rows, _ = model.embedding.weight.shape
    return tokenizer.get_vocab_size(), rows, model.config.d_ff


# --- killed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "work", [train_new, resume_old, go_on_from_the_older, export_old], ids=lambda f: f.__name__
)
def test_killed_at_any_moment_the_folder_holds_a_translator_whose_parts_belong_together(
    old: Path, tmp_path: Path, work: Callable[[Path], None], stride: int
) -> None:
    if work is export_old:
        pytest.importorskip("ctranslate2")
    whole = Path(shutil.copytree(old, tmp_path / "whole"))
    moments = kills(lambda: work(whole))
    before, after = translator_parts(old), translator_parts(whole)
    for moment in moments[::stride]:
        folder = Path(shutil.copytree(old, tmp_path / "folder"))
        with killed_at(moment), pytest.raises(Killed):
            work(folder)
        assert translator_parts(model_folder(folder)) in (before, after)
        if (folder / STAMP).exists():
            kept = (folder / "model.safetensors").read_bytes()
            assert kept == (old / "model.safetensors").read_bytes(), "not the course's any more"
        go_on(folder)
        assert translator_parts(folder) in (before, after)
        assert not [path for path in folder.glob(".*") if not path.name.startswith(".ctr")]
        shutil.rmtree(folder)


def go_on(folder: Path) -> None:
    """Train one more step."""
    with only_run(folder):  # which completes what was left half done
        last = checkpoints(folder)[-1]
    found = read_run(last).preset
    training = replace(found.training, steps=found.training.steps + 1)
    fit(make_corpus(), folder, replace(found, training=training), resume=last)
