"""The folder of a training run: what it holds, who may write into it, and how a run takes it over.

A new run leaves the folder alone until it has a model of its own. Then tokenizer, model, curve and
checkpoint go in together, and whenever the process is killed, the folder has the old translator or
the new one.
"""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save

from transformer.files import (
    READY,
    TRANSLATOR_FILES,
    atomic_write,
    check_writable,
    files_together,
    folder_lock,
    move_ready,
    read_tensors,
    remove_drafts,
)
from transformer.model import Config, read_config, save_model
from transformer.ranks import current
from transformer.recipes.averaging import CheckpointMean, Weights
from transformer.recipes.curve_picture import curve_svg
from transformer.recipes.monitoring import METRICS, MetricsLog
from transformer.recipes.resuming import SavedRun
from transformer.training import Trainer, save_checkpoint

CHECKPOINTS_KEPT = 2
DECODING = "decoding.json"
CURVE = "history.svg"
STAMP = "recipe_hash"
"""The file that `trained_translator` knows the course's translator by."""


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first; copies with names of their own are none."""
    return sorted(Path(folder).glob(f"checkpoint-{8 * '[0-9]'}.safetensors"))


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / f"checkpoint-{step:08d}.safetensors"


def snapshots(folder: str | Path) -> list[Path]:
    """Return the weights in `folder` that a mean of checkpoints is made of, oldest first."""
    return sorted(Path(folder).glob(f"snapshot-{8 * '[0-9]'}.safetensors"))


def snapshot_path(folder: Path, step: int) -> Path:
    """Return the path of the weights of a step."""
    return folder / f"snapshot-{step:08d}.safetensors"


def restore_snapshots(trainer: Trainer, folder: Path) -> None:
    """Give a trainer that averages snapshots those in `folder` up to its step."""
    if isinstance(trainer, CheckpointMean):
        last = snapshot_path(folder, trainer.steps).name
        paths = [path for path in snapshots(folder) if path.name <= last][-trainer.count :]
        steps = [int(path.stem.rpartition("-")[2]) for path in paths]
        trainer.restore(dict(zip(steps, map(read_tensors, paths), strict=True)))


def holds_run(folder: str | Path) -> bool:
    """Return whether `folder` holds anything that a new run would replace."""
    names = (*TRANSLATOR_FILES, "history.json")
    return bool(checkpoints(folder)) or any((Path(folder) / name).exists() for name in names)


def foreign_file(folder: Path, config: Config, tokenizer: str) -> Path | None:
    """Return the config.json or tokenizer.json in `folder` that is not this one, if any."""
    path = folder / "config.json"
    try:
        if path.exists() and read_config(path) != config:
            return path
    except ValueError:  # damaged, so it is not this one
        return path
    path = folder / "tokenizer.json"
    return path if path.exists() and path.read_bytes() != tokenizer.encode() else None


@contextmanager
def only_run(folder: str | Path) -> Iterator[None]:
    """Hold the folder of a run, and complete what a killed run has left half done in it.

    A thread that holds it may do so again. Of the processes of one run, rank 0 holds it for all.
    Raises BlockingIOError if another process trains there.
    """
    ranks = current()
    with ExitStack() as stack:
        try:
            if ranks.is_first:
                stack.enter_context(folder_lock(folder, wait=False))
        except BlockingIOError:
            raise BlockingIOError(
                f"another process is training in {folder}: wait until it ends, or name another "
                "folder"
            ) from None
        if ranks.is_first:
            complete(Path(folder))
        ranks.wait()
        yield


@contextmanager
def taken_over(folder: Path) -> Iterator[Path]:
    """Yield a draft folder, for all files of a new run; they replace the old run when it ends."""
    with files_together(folder) as draft:
        yield draft
        forget_course(folder)
    complete(folder)


def complete(folder: Path) -> None:
    """Replace an old run by the new one that is ready, if there is one.

    The new checkpoint is moved after the old ones are removed, so as long as it is not moved, all
    that are there are old.
    """
    if checkpoints(folder / READY):
        others = [folder / name for name in (METRICS, CURVE, DECODING, "history.png")]
        for path in [*checkpoints(folder), *snapshots(folder), *others]:
            path.unlink(missing_ok=True)
    move_ready(folder)


def forget_course(folder: Path) -> None:
    """Remove the stamp of the course's translator, because another model takes its place."""
    (folder / STAMP).unlink(missing_ok=True)


def drop_later_checkpoints(folder: Path, step: int) -> None:
    """Remove the checkpoints after a step; a run that goes on from there writes its own."""
    late = [p for p in checkpoints(folder) if p.name > checkpoint_path(folder, step).name]
    late += [p for p in snapshots(folder) if p.name > snapshot_path(folder, step).name]
    for path in late:
        path.unlink()


def drop_old_checkpoints(folder: Path, snapshots_used: int) -> None:
    """Keep the last two checkpoints, and what both of them average."""
    kept = snapshots_used + CHECKPOINTS_KEPT - 1
    for path in [*checkpoints(folder)[:-CHECKPOINTS_KEPT], *snapshots(folder)[:-kept]]:
        path.unlink()


# --- what one run writes --------------------------------------------------------------------------


@dataclass
class RunFolder:
    """The folder of one run, and what the run has written there.

    `settings` are those that `read_run` finds in a checkpoint. `in_place` says whether the
    translator in the folder is one of this run, `best` is its validation loss, and `last_kept` the
    step of the run's last checkpoint. `metrics` are written with it.
    """

    path: Path
    settings: dict[str, Any]
    best: float = math.inf
    in_place: bool = False
    last_kept: int = 0
    metrics: MetricsLog = field(default_factory=MetricsLog)

    def resume(self, saved: SavedRun, config: Config, step: int) -> None:
        """Go on from a checkpoint; ValueError if it lies here beside another run's translator."""
        self.last_kept = step
        self.metrics.resume(saved.checkpoint.parent, step)
        if saved.checkpoint.resolve().parent != self.path.resolve():
            return
        foreign = foreign_file(self.path, config, saved.tokenizer)
        if foreign:
            raise ValueError(
                f"{foreign} does not belong to {saved.checkpoint.name}: go on in another folder"
            )
        if all((self.path / name).is_file() for name in TRANSLATOR_FILES):
            self.in_place = True
            self.best = min((row["val_loss"] for row in saved.history), default=math.inf)

    def prepare(self) -> None:
        """Remove what a killed run left half written; OSError if the folder cannot be written."""
        check_writable(self.path / "config.json")
        remove_drafts(self.path)

    def keep(self, trainer: Trainer, seconds: float, history: list[dict]) -> None:
        """Write the model if its loss is the lowest so far, a checkpoint, and the learning curve.

        The first time, if the translator in the folder is not of this run, they replace all that
        another run has written there.
        """
        loss = history[-1]["val_loss"]
        notes = self.settings | {"seconds": seconds, "history": history}
        if self.in_place:
            forget_course(self.path)
            drop_later_checkpoints(self.path, self.last_kept)
            if loss < self.best:
                save_model(trainer.ema_model, self.path)
            self.write_progress(self.path, trainer, notes)
            drop_old_checkpoints(self.path, len(snapshots_of(trainer)))
        else:
            with taken_over(self.path) as draft:
                atomic_write(draft / "tokenizer.json", self.settings["tokenizer"].encode())
                save_model(trainer.ema_model, draft)
                self.write_progress(draft, trainer, notes)
        self.in_place = True
        self.best = min(self.best, loss)
        self.last_kept = trainer.steps

    def write_progress(self, folder: Path, trainer: Trainer, notes: dict) -> None:
        """Write a checkpoint, the learning curve, its picture and the metrics into `folder`."""
        for step, weights in snapshots_of(trainer).items():
            if not (path := snapshot_path(folder, step)).exists():
                atomic_write(path, save({name: x.cpu() for name, x in weights.items()}))
        save_checkpoint(trainer, checkpoint_path(folder, trainer.steps), notes)
        history = notes["history"]
        atomic_write(folder / "history.json", json.dumps(history, indent=1).encode())
        atomic_write(folder / CURVE, curve_svg(history).encode())
        if decoding := notes.get("decoding"):
            atomic_write(folder / DECODING, json.dumps(decoding).encode())
        self.metrics.write(folder)

    def log(self) -> None:
        """Write the metrics between validations, once the folder is this run's."""
        if self.in_place:
            self.metrics.write(self.path)


def snapshots_of(trainer: Trainer) -> dict[int, Weights]:
    """Return the snapshots that a trainer averages, if it does."""
    return trainer.snapshots if isinstance(trainer, CheckpointMean) else {}
