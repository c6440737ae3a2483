"""Packages of npm are fetched once, and what goes wrong is said."""

from types import SimpleNamespace

import pytest

from transformer.explorer import npm


def test_a_package_of_npm_is_installed_once(tmp_path, monkeypatch) -> None:
    calls = []

    def install(command, **options):
        calls.append(command)
        folder = tmp_path / "a-1.0" / "node_modules" / "a"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(npm.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(npm.subprocess, "run", install)
    assert npm.npm_package("a@1.0", tmp_path) == npm.npm_package("a@1.0", tmp_path)
    assert len(calls) == 1 and calls[0][-1] == "a@1.0"
    npm.npm_package("a@1.0", tmp_path, ["dist/a.js"])  # a file is missing
    assert len(calls) == 2


def test_what_npm_cannot_install_is_named(tmp_path, monkeypatch) -> None:
    failed = SimpleNamespace(returncode=1, stderr="no such package")
    monkeypatch.setattr(npm.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(npm.subprocess, "run", lambda *command, **options: failed)
    with pytest.raises(ValueError, match=r"could not install a@1\.0: no such package"):
        npm.npm_package("a@1.0", tmp_path)
