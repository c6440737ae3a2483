"""Files and folders are written whole or not at all, and what is damaged is refused."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from killing import Killed, killed_at, kills
from safetensors.torch import save

from transformer import files
from transformer.files import (
    atomic_folder,
    atomic_write,
    cache_dir,
    check_writable,
    downloader,
    files_together,
    folder_lock,
    move_ready,
    read_tensors,
    remove_drafts,
)

# --- files -------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        atomic_write(path, b"new")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_the_old_content_and_leaves_no_draft(tmp_path) -> None:
    path = tmp_path / "not" / "there yet" / "file"
    for content in (b"a long old content", b"new", b""):
        atomic_write(str(path), content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_path_that_is_a_folder_is_refused(tmp_path) -> None:
    with pytest.raises(OSError, match="could not write"):
        atomic_write(tmp_path, b"new")
    assert list(tmp_path.iterdir()) == []
    assert [path for path in tmp_path.parent.iterdir() if path.name.endswith(".draft")] == []


def test_a_written_file_can_be_read_by_those_who_can_read_other_files(tmp_path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    atomic_write(tmp_path / "atomic", b"")
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "atomic")}
    assert len(modes) == 1


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path) -> None:
    path = tmp_path / "file"
    contents = [bytes([i]) * 100_000 for i in range(8)]
    failed = []

    def write(content: bytes) -> None:
        try:
            for _ in range(5):
                atomic_write(path, content)
                assert path.read_bytes() in contents
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_is_tried_and_nothing_is_left_there(tmp_path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new", "not/there yet/new"):
        check_writable(tmp_path / name)
    assert (tmp_path / "old").read_bytes() == b"old"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["old"]


def test_a_path_that_cannot_be_written_is_refused_before_there_is_something_to_write(
    tmp_path,
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "new"):
        with pytest.raises(OSError, match=f"could not write {path} "):
            check_writable(path)


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_a_pipe_can_be_written(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_writable(tmp_path / "pipe")


def test_drafts_that_a_killed_process_left_can_be_removed(tmp_path, monkeypatch) -> None:
    def killed(descriptor: int) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", killed)
        patch.setattr(Path, "unlink", lambda *args, **options: None)
        with pytest.raises(SystemExit):
            atomic_write(tmp_path / "file", b"new")
    (tmp_path / files.DRAFT).mkdir()
    (tmp_path / "my.draft").touch()
    assert len(list(tmp_path.iterdir())) == 3
    remove_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["my.draft"]
    remove_drafts(tmp_path / "no such folder")


def test_the_draft_of_an_export_that_may_still_be_written_is_left_alone(tmp_path) -> None:
    for name, age in (("fresh", 60), ("stale", files.STALE_AFTER + 60)):
        draft = tmp_path / f".onnx.{name}.draft"
        draft.mkdir()
        os.utime(draft, (time.time() - age,) * 2)
    remove_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".onnx.fresh.draft"]


def test_tensors_come_back_as_they_were(tmp_path) -> None:
    tensors = {"a": torch.randn(2, 3), "b": torch.arange(4)}
    atomic_write(tmp_path / "x.safetensors", save(tensors))
    again = read_tensors(tmp_path / "x.safetensors")
    assert again.keys() == tensors.keys()
    assert all(again[name].equal(tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "cut", [lambda content: content[:-4], lambda content: b"", lambda content: b"PK" + content]
)
def test_tensors_that_were_cut_off_are_refused(tmp_path, cut) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(cut(save({"a": torch.zeros(9)})))
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged or not a safetensors file"):
        read_tensors(path)


def test_tensors_that_are_not_there_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.safetensors"):
        read_tensors(tmp_path / "x.safetensors")


# --- files that belong together ----------------------------------------------------------------


def write_together(folder: Path, content: str) -> None:
    """Replace the files a and b of a folder together."""
    with files_together(folder) as draft:
        for name in ("a", "b"):
            atomic_write(draft / name, content.encode())
    move_ready(folder)


def together(folder: Path) -> dict[str, str]:
    """Return what every file and folder in a folder holds."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_that_belong_together_are_replaced_together(tmp_path) -> None:
    folder = tmp_path / "not" / "there yet"
    for content in ("old", "new"):
        write_together(folder, content)
        (folder / "mine").write_text("kept")
        assert together(folder) == {"a": content, "b": content, "mine": "kept"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_none_of_them_is_replaced(tmp_path, error: BaseException) -> None:
    write_together(tmp_path, "old")
    with pytest.raises(type(error)), files_together(tmp_path) as draft:
        (draft / "a").write_text("new")
        raise error
    move_ready(tmp_path)
    assert together(tmp_path) == {"a": "old", "b": "old"}


def test_killed_at_any_moment_all_of_them_are_replaced_or_none(tmp_path) -> None:
    write_together(tmp_path / "whole", "old")
    moments = kills(lambda: write_together(tmp_path / "whole", "new"))
    assert len(moments) > 8
    seen = set()
    for moment in moments:
        folder = tmp_path / str(moment)
        write_together(folder, "old")
        with killed_at(moment), pytest.raises(Killed):
            write_together(folder, "new")
        move_ready(folder)
        files.remove_drafts(folder)
        contents = {(folder / name).read_text() for name in ("a", "b")}
        assert len(contents) == 1
        seen |= contents
        write_together(folder, "newer")
        assert together(folder) == {"a": "newer", "b": "newer"}
    assert seen == {"old", "new"}


def test_a_reader_moves_only_what_it_reads(tmp_path) -> None:
    move_ready(tmp_path, "a")
    move_ready(tmp_path / "no such folder")
    assert list(tmp_path.iterdir()) == []
    with files_together(tmp_path) as draft:
        for name in ("a", "b"):
            (draft / name).write_text("new")
    move_ready(tmp_path, "a", "c")
    assert {path.name for path in tmp_path.iterdir()} == {"a", files.READY}
    move_ready(tmp_path)
    assert together(tmp_path) == {"a": "new", "b": "new"}


# --- folders -----------------------------------------------------------------------------------


@pytest.fixture
def out(tmp_path) -> Path:
    """Return a folder that was exported once."""
    with atomic_folder(tmp_path / "out", ["a", "b"]) as draft:
        (draft / "a").write_text("old")
    return tmp_path / "out"


def state(out: Path) -> dict[str, list[tuple[str, str]]]:
    """Return the files of every folder beside `out`, hidden ones too."""
    folders = [path for path in out.parent.iterdir() if path.is_dir()]
    return {p.name: [(q.name, q.read_text()) for q in p.iterdir()] for p in folders}


def test_a_new_export_takes_the_place_of_the_old_one(out) -> None:
    with atomic_folder(out, ["a", "b"]) as draft:
        (draft / "b").write_text("new")
        assert (out / "a").read_text() == "old"
    assert state(out) == {"out": [("b", "new")]}


def test_a_folder_is_made_with_those_above_it(tmp_path) -> None:
    with atomic_folder(str(tmp_path / "x" / "y" / "out"), ["a"]) as draft:
        (draft / "a").write_text("new")
    assert state(tmp_path / "x" / "y" / "out") == {"out": [("a", "new")]}


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("?"), KeyboardInterrupt()]
)
def test_an_export_that_fails_leaves_the_old_one(out, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, atomic_folder(out, ["a", "b"]) as draft:
        (draft / "b").write_text("new")
        raise error
    assert state(out) == {"out": [("a", "old")]}
    if isinstance(error, OSError):
        end = "(No space left on device); what was there before is untouched"
        assert str(caught.value).endswith(end)


def test_a_rename_that_fails_puts_the_old_one_back(out, monkeypatch) -> None:
    rename = os.replace

    def fail(source: Path, target: Path) -> None:
        if source.name.endswith(".draft"):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="Permission denied"), atomic_folder(out, ["a"]) as draft:
        (draft / "a").write_text("new")
    assert state(out) == {"out": [("a", "old")]}


def test_after_a_crash_between_the_renames_the_old_one_is_found_again(out) -> None:
    out.rename(out.with_name(".out.0123.old"))
    with pytest.raises(RuntimeError), atomic_folder(out, ["a", "b"]):
        raise RuntimeError
    assert state(out) == {"out": [("a", "old")]}


def test_of_two_old_ones_the_newer_is_found_again(out) -> None:
    for name, age in (("0001", 0), ("0002", 50)):
        old = out.with_name(f".out.{name}.old")
        old.mkdir()
        (old / "a").write_text(f"{age} seconds old")
        os.utime(old, (time.time() - age,) * 2)
    (out / "a").unlink()
    out.rmdir()
    with pytest.raises(RuntimeError), atomic_folder(out, ["a", "b"]):
        raise RuntimeError
    assert state(out) == {"out": [("a", "0 seconds old")]}


def test_drafts_are_removed_when_they_can_only_be_a_killed_processs(out) -> None:
    for name, age in (("fresh", 60), ("stale", files.STALE_AFTER + 60)):
        draft = out.with_name(f".out.{name}.draft")
        draft.mkdir()
        os.utime(draft, (time.time() - age,) * 2)
    with atomic_folder(out, ["a"]):
        pass
    assert set(state(out)) == {"out", ".out.fresh.draft"}


def test_two_exports_at_once_do_not_disturb_each_other(out) -> None:
    with atomic_folder(out, ["a"]) as first, atomic_folder(out, ["a"]) as second:
        assert first != second
        (first / "a").write_text("first")
        (second / "a").write_text("second")
    assert state(out) == {"out": [("a", "first")]}, "which ended last"


def test_many_exports_at_once_all_succeed(tmp_path) -> None:
    out = tmp_path / "out"
    failed = []

    def write(number: int) -> None:
        try:
            for _ in range(6):
                with atomic_folder(out, ["a", "b"]) as draft:
                    (draft / "a").write_text(str(number))
                    (draft / "b").write_text(str(number))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert len(set(together(out).values())) == 1
    assert set(state(out)) == {"out"}


def test_an_export_that_comes_between_the_renames_of_another_is_kept(out, monkeypatch) -> None:
    rename = os.replace

    def overtaken(source: Path, target: Path) -> None:
        rename(source, target)
        if target.name.endswith(".old"):
            monkeypatch.setattr("os.replace", rename)
            out.mkdir()
            (out / "b").write_text("other")

    monkeypatch.setattr("os.replace", overtaken)
    with pytest.raises(OSError, match="could not write"), atomic_folder(out, ["a", "b"]) as draft:
        (draft / "a").write_text("new")
    assert state(out) == {"out": [("b", "other")]}


def test_what_an_export_did_not_write_is_never_removed(out) -> None:
    (out / "diary").write_text("mine")
    for path in (out, out / "diary"):
        refused = pytest.raises(ValueError, match="holds something that is not an export")
        with refused, atomic_folder(path, ["a", "b"]):
            pass
    assert sorted(state(out)["out"]) == [("a", "old"), ("diary", "mine")]


# --- locks and the cache -----------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from transformer.files import folder_lock
with folder_lock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.readline()
    Path(sys.argv[1], "done").touch()
"""


def test_a_locked_folder_is_waited_for(tmp_path) -> None:
    folder = tmp_path / "model.v2"
    folder.mkdir()
    command = [sys.executable, "-c", HOLD, str(folder)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    entered = []

    def enter() -> None:
        with folder_lock(folder):
            entered.append((folder / "done").exists())

    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "locked\n"
        waiting = threading.Thread(target=enter)
        waiting.start()
        time.sleep(0.2)
        assert entered == []
        process.stdin.write("\n")
        process.stdin.flush()
        waiting.join(20)
    assert entered == [True]
    assert list(folder.iterdir()) == [folder / "done"], "the lock is beside the folder"


def test_a_lock_is_released_when_its_process_is_killed(tmp_path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "model")]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "locked\n"
        process.kill()
    with folder_lock(tmp_path / "model"):
        pass


def test_a_lock_that_another_process_holds_can_be_refused(tmp_path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "model")]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "locked\n"
        refused = pytest.raises(BlockingIOError, match=r"model is in use by another process$")
        with refused, folder_lock(tmp_path / "model", wait=False):
            pass
        process.kill()
    with folder_lock(tmp_path / "model"), folder_lock(tmp_path / "model", wait=False):
        pass


def test_where_nothing_can_be_created_beside_a_folder_the_lock_is_inside(
    tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with folder_lock(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_lock_that_cannot_be_created_is_explained(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="could not write"), folder_lock(tmp_path / "file" / "model"):
        pass


def test_threads_wait_for_each_other_and_one_may_enter_twice(tmp_path) -> None:
    inside = []

    def enter() -> None:
        with folder_lock(tmp_path / "x" / "model"), folder_lock(tmp_path / "x" / "model"):
            inside.append("in")
            time.sleep(0.05)
            inside.append("out")

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert inside == ["in", "out"] * 3


def test_a_lock_is_released_after_an_error(tmp_path) -> None:
    with pytest.raises(RuntimeError), folder_lock(tmp_path / "model"):
        raise RuntimeError
    other = threading.Thread(
        target=lambda: folder_lock(tmp_path / "model").__enter__(), daemon=True
    )
    other.start()
    other.join(10)
    assert not other.is_alive()


def test_the_cache_is_where_the_environment_says_or_the_users(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TRANSFORMER_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    for unset in (
        lambda: monkeypatch.setenv("TRANSFORMER_CACHE", ""),
        lambda: monkeypatch.delenv("TRANSFORMER_CACHE"),
    ):
        unset()
        assert cache_dir() == Path(downloader().os_cache("transformer"))


def test_the_downloader_is_imported_without_a_warning() -> None:
    code = "from transformer.files import downloader; print(downloader().__name__)"
    command = [sys.executable, "-W", "error", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("pooch\n", "")
