"""Atomic writes, locked folders, the cache folder, and a careful reader of tensors.

A training run can be killed at any moment, and two processes can write the same model. So nothing
is written in place: the content goes to a draft beside the target, and a rename puts it there.
"""

import glob
import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

STALE_AFTER = 24 * 3600  # seconds after which the draft of a folder can only be a killed process's
TRANSLATOR_FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""What a translator is made of."""
DRAFT = ".together.draft"
READY = ".together.ready"
"""Folders of files that belong together: while they are written, and when all of them are there."""


# --- files -------------------------------------------------------------------------------------


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new one, never a part.

    Missing folders are created. Several writers of one path do not disturb each other; the last
    one wins. Raises OSError if the file cannot be written (disk full, read-only); the old file is
    then untouched.
    """
    path = Path(path)
    draft = _hidden(path, "draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        with suppress(OSError):
            draft.unlink()


def check_writable(path: str | Path) -> None:
    """Raise OSError if no file could be written at `path`; nothing is left there.

    Missing folders are created. A pipe or a device is taken as it is.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _not_written(path, error) from None


def remove_drafts(folder: str | Path) -> None:
    """Remove the drafts that a killed process left in a folder.

    Call it only while no other process writes files into the folder, because it cannot tell a draft
    that was left behind from one that is being written. The drafts of other folders, such as
    exports, stay for a day.
    """
    folder = Path(folder)
    limit = time.time() - STALE_AFTER
    for path in folder.glob(".*.draft"):
        if not path.is_dir():
            path.unlink(missing_ok=True)
        elif path.name == DRAFT or _changed(path) < limit:
            shutil.rmtree(path, ignore_errors=True)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises FileNotFoundError if there is none, ValueError if it is cut off or something else.
    """
    try:
        return load(Path(path).read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error!s:.200})") from None


# --- files that belong together ----------------------------------------------------------------


@contextmanager
def files_together(folder: str | Path) -> Iterator[Path]:
    """Yield a draft folder; when the block ends, its files are ready to be moved into `folder`.

    One rename makes all of them ready. After an error or a crash before it, `folder` is as it was;
    after a crash behind it, `move_ready` does the rest. Hold the lock of `folder` meanwhile.
    """
    draft = Path(folder) / DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        os.replace(draft, draft.with_name(READY))
    except OSError as error:
        raise _not_written(Path(folder), error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def move_ready(folder: str | Path, *names: str) -> None:
    """Move files that are ready into `folder`, where they replace those of the same name.

    Without names, all of them. Does nothing if there are none, so that whoever reads a folder can
    call it first. Several processes may do so at once.
    """
    ready = Path(folder) / READY
    for path in [ready / name for name in names] or ready.glob("*"):
        with suppress(FileNotFoundError):  # there is none, or another process has moved it
            os.replace(path, ready.with_name(path.name))
    with suppress(OSError):  # it is not there, or not empty
        ready.rmdir()


# --- folders -----------------------------------------------------------------------------------


@contextmanager
def atomic_folder(out: str | Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a draft folder that replaces `out` as a whole when the block ends without an error.

    After an error `out` is what it was before. After a crash between the two renames it is missing,
    and the next call restores it. Of several processes that write `out` at once each replaces it,
    one after the other.
    Raises ValueError if `out` is a file or holds files other than `names`, which this function did
    not write and must not remove; OSError if it cannot be written.
    """
    out = Path(out)
    draft = _hidden(out, "draft")
    try:
        _check_replaceable(out, names)
        with folder_lock(out):
            _recover(out)
        draft.mkdir(parents=True)
        yield draft
        _flush(draft)
        with folder_lock(out):
            _check_replaceable(out, names)
            _replace_folder(draft, out)
    except OSError as error:
        raise _not_written(out, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check_replaceable(out: Path, names: Sequence[str]) -> None:
    """Raise ValueError if `out` is a file or holds other files than `names`."""
    try:
        found = set(os.listdir(out))
    except FileNotFoundError:  # another process may just be replacing it
        return
    except NotADirectoryError:
        found = None
    if found is None or found - set(names):
        raise ValueError(f"{out} holds something that is not an export: name a folder that is new")


def _recover(out: Path) -> None:
    """Restore `out` after a crash between two renames, and remove what killed processes left."""
    old = _left_behind(out, "old")
    if old and not out.exists():
        with suppress(FileNotFoundError):  # another process restores it, too
            os.replace(old.pop(), out)
    limit = time.time() - STALE_AFTER
    stale = [path for path in _left_behind(out, "draft") if _changed(path) < limit]
    for path in old + stale:
        shutil.rmtree(path, ignore_errors=True)


def _replace_folder(draft: Path, out: Path) -> None:
    """Rename `draft` to `out`; no folder can replace another one, so the old one is moved first."""
    old = _hidden(out, "old")
    if out.exists():
        os.replace(out, old)
    try:
        os.replace(draft, out)
    except OSError:
        if old.exists() and not out.exists():
            os.replace(old, out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Wait until the files of a folder are on the disk."""
    for path in folder.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


@contextmanager
def folder_lock(folder: str | Path, wait: bool = True) -> Iterator[None]:
    """Hold a folder, which need not exist yet, while other processes and threads wait for it.

    The lock is on the file `<folder>.lock` beside the folder, or on `.lock` in the folder if none
    can be created beside it. The system releases it when the process dies. A thread that holds the
    lock may take it again.
    Raises OSError if the lock file cannot be created, and BlockingIOError if another holds the lock
    and `wait` is False.
    """
    path = Path(folder).resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = os.access(path.parent, os.W_OK)
        file = path.with_name(f"{path.name}.lock") if beside else path / ".lock"
        lock = FileLock(file, is_singleton=True)
        lock.acquire(blocking=wait)
    except Timeout:
        raise BlockingIOError(f"{folder} is in use by another process") from None
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        yield
    finally:
        lock.release()


def _hidden(path: Path, kind: str) -> Path:
    """Return a new hidden name beside `path`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.{kind}")


def _left_behind(path: Path, kind: str) -> list[Path]:
    """Return what has a hidden name beside `path`, the oldest first."""
    found = path.parent.glob(f".{glob.escape(path.name)}.*.{kind}")
    return sorted(found, key=_changed)


def _changed(path: Path) -> float:
    """Return when a path was last changed, in seconds; 0 if it has just been removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _not_written(path: Path, error: OSError) -> OSError:
    """Return the error that says which path could not be written and why.

    An error without a number is a sentence of this module, and stays as it is.
    """
    if error.strerror is None:
        return error
    text = f"could not write {path} ({error.strerror}); what was there before is untouched"
    return OSError(text)


# --- the cache ---------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Return the folder for downloads and trained models.

    It is $TRANSFORMER_CACHE, or the folder "transformer" in the user's cache.
    """
    return Path(os.environ.get("TRANSFORMER_CACHE") or downloader().os_cache("transformer"))


def downloader() -> ModuleType:
    """Return pooch, imported late and without its warning that a notebook has no widgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pooch
    return pooch
