"""Test the benchmark of quality: its rows, its table, and a whole run on a few captions."""

import gzip
import json
import math
import os
import signal
import sys
from pathlib import Path

import pytest
from test_recipes import make_corpus

from benchmarks import quality

RECIPE = """
corpus = "multi30k"
src = "en"
tgt = "de"
[model]
vocab_size = 90
d_model = 16
n_heads = 2
n_layers = 1
d_ff = 16
[training]
steps = 3
precision = "fp32"
[decoding]
beam_size = 2
"""


def row(**changes) -> dict:
    found = dict(recipe="r", change="", pair="en-de", seed=1, test_set="val", metric=quality.MOSES)
    found |= dict(search="beam 5", minutes=40.0, threads=2, val_loss=3.0, score=40.0)
    return found | changes


def test_the_readmes_table_is_that_of_the_rows() -> None:
    text = quality.README.read_text(encoding="utf-8")
    _, begin, rest = text.partition("<!-- quality -->")
    table, end, _ = rest.partition("<!-- /quality -->")
    assert begin and end
    assert table.strip() == quality.markdown(quality.read())


def test_a_line_of_the_table_has_means_and_spreads_over_seeds() -> None:
    test = dict(test_set="test_2016_flickr")
    rows = [
        row(),
        row(seed=2, score=41.0, minutes=42.0, val_loss=3.1),
        row(**test, score=38.0),
        row(change="simcut 3", score=42.0),
    ]
    lines = quality.markdown(rows).splitlines()[2:]
    assert lines == [
        "| r | en→de | 2 | 41 | 2 | 3.050 | 40.50 ± 0.71 | 38.00 |  |  |",
        "| r, simcut 3 | en→de | 1 | 40 | 2 | 3.000 | 42.00 |  |  |  |",
    ]


def test_a_row_of_the_same_measurement_is_replaced(tmp_path) -> None:
    path = tmp_path / "quality.json"
    quality.add(path, [row(), row(seed=2)])
    quality.add(path, [row(score=41.0), row(seed=3)])
    assert [(r["seed"], r["score"]) for r in quality.read(path)] == [
        (1, 41.0),
        (2, 40.0),
        (3, 40.0),
    ]


def test_a_recipe_for_another_corpus_is_refused(tmp_path) -> None:
    path = tmp_path / "files.toml"
    path.write_text('corpus = "files"')
    with pytest.raises(ValueError, match="only Multi30k is scored"):
        quality.pairs_of(quality.read_recipe(path), "val", None)


def test_changed_options_are_named() -> None:
    assert quality.change_of([]) == ""
    assert quality.change_of("--simcut 3 --norm pre".split()) == "simcut 3, norm pre"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_to_end_is_passed_on_to_what_trains() -> None:
    child = """if True:
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
    """
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("by the test"))
    try:
        assert quality.run_to_its_end([sys.executable, "-c", child]) == 7
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["by the test"]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder with the files of Multi30k, which hold a few sentences."""
    corpus = make_corpus()
    (tmp_path / "raw").mkdir()
    (tmp_path / "tok").mkdir()
    for name in ("train", "val", "test_2016_flickr"):
        pairs = corpus.train if name == "train" else corpus.val
        for side, language in enumerate(("en", "de")):
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (tmp_path / "raw" / f"{name}.{language}.gz").write_bytes(gzip.compress(text.encode()))
            (tmp_path / "tok" / f"{name}.lc.norm.tok.{language}").write_text(text.lower())
    return tmp_path


def test_a_recipe_is_trained_scored_and_added(data, tmp_path, capsys) -> None:
    pytest.importorskip("sacremoses")
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE)
    out = tmp_path / "quality.json"
    command = ["--recipe", recipe, "--folder", data, "--runs", tmp_path / "runs", "--out", out]
    command = list(map(str, command))
    assert quality.main([*command, "--seed", "1", "2", "--", "--r-drop", "1"]) == 0
    rows = quality.read(out)
    assert len(rows) == 2 * 2 * 3
    first = rows[0]
    assert (first["recipe"], first["change"], first["pair"]) == ("small", "r-drop 1", "en-de")
    assert (first["steps"], first["search"]) == (3, "beam 2, length penalty 1")
    assert all(math.isfinite(r["score"]) and "version:" in r["signature"] for r in rows)
    assert {r["test_set"] for r in rows} == {"val", "test_2016_flickr"}
    kept = tmp_path / "runs" / "small-r-drop-1-2" / "test_2016_flickr.txt"
    assert len(kept.read_text().splitlines()) == 3
    assert "small, r-drop 1 | en→de | 2 |" in capsys.readouterr().out
    assert quality.main([*command, "--seed", "1", "--tests", "--", "--r-drop", "1"]) == 0
    assert "nothing is left to train" in capsys.readouterr().err
    assert json.loads(out.read_text())["rows"] == quality.read(out)
    assert quality.main([*command, "--", "--d-model", "15"]) == 1


def test_of_a_recipe_for_moses_tokens_only_these_are_scored(data, tmp_path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(f"tokenized = true\n{RECIPE}")
    out = tmp_path / "quality.json"
    command = ["--recipe", recipe, "--folder", data, "--runs", tmp_path / "runs", "--out", out]
    assert quality.main(list(map(str, command))) == 0
    rows = quality.read(out)
    assert [(r["test_set"], r["metric"]) for r in rows] == [
        ("val", quality.MOSES),
        ("test_2016_flickr", quality.MOSES),
    ]
    assert all("tok:none" in r["signature"] for r in rows)
    translations = tmp_path / "runs" / "small-1" / "val.txt"
    assert translations.read_text() == translations.read_text().lower()


@pytest.mark.slow
def test_a_recipe_is_trained_in_two_processes(data, tmp_path) -> None:
    pytest.importorskip("sacremoses")
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE)
    out = tmp_path / "quality.json"
    command = ["--recipe", recipe, "--folder", data, "--runs", tmp_path / "runs", "--out", out]
    command += ["--processes", "2", "--tests"]
    assert quality.main(list(map(str, command))) == 0
    assert {(r["steps"], r["processes"], r["threads"]) for r in quality.read(out)} == {(3, 2, 2)}
