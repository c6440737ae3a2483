"""Every line of the reviewers' lists is met by a file or a test, or is named as a person's."""

import json
import re
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml
from distributions import contents, differences, lacking
from release import changelog_problems, problems, version
from review import Criterion, criteria, faults, table, there
from test_repository import NOTEBOOKS, PYPROJECT, ROOT

from transformer.course.exercises import all_exercises
from transformer.course.lessons import LESSONS

PAPER = (ROOT / "paper" / "paper.md").read_text(encoding="utf-8")
BIB = (ROOT / "paper" / "paper.bib").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PLACES = (".devcontainer/devcontainer.json", ".vscode/settings.json", ".vscode/extensions.json")


# --- the lists ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", criteria(), ids=lambda row: f"{row.source}: {row.name}")
def test_a_criterion_is_met_where_its_row_says(row: Criterion) -> None:
    assert faults(row) == []


@pytest.mark.parametrize(
    ("place", "is_there"),
    [
        ("README.md", True),
        ("NOTHING.md", False),
        ("README.md # Install", True),
        ("README.md # Instal", False),
        ("NOTHING.md # Install", False),
        ("LICENSE : MIT License", True),
        ("LICENSE : GPL", False),
        ("tests/test_review.py :: test_each_chapter_has_objectives_and_a_frame", True),
        ("tests/test_review.py :: test_each_chapter", False),
        ("make test", True),
        ("make tests", False),
    ],
)
def test_a_place_is_looked_at(place: str, is_there: bool) -> None:
    assert there(place) is is_there


def test_a_criterion_that_is_not_met_is_seen() -> None:
    assert faults(Criterion("x", "x", "x", met=("NOTHING.md",))) == ["missing: NOTHING.md"]
    assert faults(Criterion("x", "x", "x", absent=("README.md",))) == ["is there: README.md"]
    assert faults(Criterion("x", "x", "x")) == ["says nothing"]
    assert len(faults(Criterion("x", "PY001", "x", ignored="why"))) == 1
    assert faults(Criterion("x", "x", "x", person="do it")) == []


def test_the_page_names_what_only_a_person_can_do() -> None:
    page = table()
    assert " 0 not met" in page and "NOT MET" not in page
    assert page.count("**a person**") == len(re.findall(r"^- ", page, re.MULTILINE)) > 5


def test_every_check_of_repo_review_has_a_row() -> None:
    pytest.importorskip("sp_repo_review")
    from repo_review.processor import collect_all

    known = {row.name for row in criteria() if row.source == "repo-review"}
    assert known == set(collect_all().checks)


# --- the course -----------------------------------------------------------------------------------

ENGINEERS = {"15_fast_training", "16_fast_decoding"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_chapter_has_objectives_and_a_frame(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    objectives = prose.partition("**What you will be able to do**\n\n")[2].partition("\n\n")[0]
    assert len(re.findall(r"^- ", objectives, re.MULTILINE)) == 3
    headings = re.findall(r"^## (.*)$", prose, re.MULTILINE)
    assert headings[0] == "The question"
    practice = "Try it" if path.stem in ENGINEERS else "Exercises"
    assert practice in headings or path.stem[:2] in ("00", "13", "14")


# --- the paper ------------------------------------------------------------------------------------


def test_the_papers_numbers_are_those_of_the_course() -> None:
    assert f"There are {len(all_exercises())} exercises of five kinds" in " ".join(PAPER.split())
    assert len({task.kind for task in all_exercises()}) == 5
    assert "Thirteen chapters lead" in PAPER and "four more" in PAPER and len(LESSONS) == 13 + 4
    core = LESSONS[:13]
    minutes = sum(task.minutes for task in all_exercises())
    assert round(sum(lesson.minutes for lesson in core) / 60) == 9 and round(minutes / 60) == 18


def test_the_paper_is_short_and_has_its_heading() -> None:
    _, head, text = PAPER.split("---\n", 2)
    about = yaml.safe_load(head)
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(about)
    assert 250 < len(text.split()) < 1000
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert [one["name"] for one in about["authors"]] == [one["name"] for one in citation["authors"]]
    assert about["title"] == citation["title"]


def incomplete(bib: str, cited: set[str]) -> list[str]:
    """List the references that lack a part, or that are not cited, or are cited and not there."""
    entries = dict(re.findall(r"^@(?:\w+)\{(\w+),\n(.*?)\n\}$", bib, re.MULTILINE | re.DOTALL))
    found = [f"{name} is not cited" for name in entries if name not in cited]
    found += [f"{name} is not there" for name in sorted(cited - set(entries))]
    for name, text in entries.items():
        keys = set(re.findall(r"^ *(\w+) = ", text, re.MULTILINE))
        found += [f"{name} has no {key}" for key in ("author", "title", "year") if key not in keys]
        if not keys & {"doi", "url", "publisher"}:
            found.append(f"{name} has neither DOI nor address nor publisher")
    return found


def test_references_are_complete_and_used() -> None:
    assert incomplete(BIB, set(re.findall(r"@(\w+\d{4})", PAPER))) == []


def test_an_incomplete_reference_is_seen() -> None:
    bib = "@misc{a2020,\n  author = {A},\n  title = {T}\n}\n"
    assert incomplete(bib, {"b2021"}) == [
        "a2020 is not cited",
        "b2021 is not there",
        "a2020 has no year",
        "a2020 has neither DOI nor address nor publisher",
    ]


# --- a release ------------------------------------------------------------------------------------


def test_the_version_stands_in_one_place() -> None:
    number = version()
    assert PYPROJECT["project"]["dynamic"] == ["version"] and "version" not in PYPROJECT["project"]
    assert "version:" not in (ROOT / "CITATION.cff").read_text().replace("cff-version:", "")
    import transformer

    assert transformer.__version__ == number


def test_the_changelog_has_its_form() -> None:
    assert changelog_problems((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")) == []


def test_another_form_of_a_changelog_is_seen() -> None:
    text = "## [0.1.0] - 2026\n\n### New\n\n- a\n\n### Fixed\n\n### Fixed\n\n- a\n"
    assert changelog_problems(text) == [
        "the first section is not [Unreleased]",
        "### New: no kind of change",
        "## [0.1.0] - 2026: a kind of change stands twice",
        "twice: - a",
    ]
    assert changelog_problems("## [Unreleased]\n\n## 0.1\n") == ["## 0.1: not [version] - date"]


def test_a_release_needs_its_tag_its_section_and_an_address(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n")
    project = tmp_path / "pyproject.toml"
    project.write_text('Source = "https://github.com/someone/transformer"\n')
    assert problems("v1.2.3", tmp_path) == []
    assert problems("v1.2.4", tmp_path) == ["the tag is v1.2.4, the version 1.2.3"]
    project.write_text('Source = "https://github.com/the_owner/transformer"\n')
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n")
    assert len(problems("v1.2.3", tmp_path)) == 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned(path: Path) -> None:
    uses = re.findall(r"uses: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    pinned = re.compile(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [action for action in uses if not pinned.fullmatch(action)] == []


def test_only_a_tag_is_published_and_only_after_the_checks() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    publish = jobs["publish"]
    assert publish["needs"] == "build" and publish["if"] == "github.ref_type == 'tag'"
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"]["name"] == "pypi"
    steps = [step.get("run", "") for step in jobs["build"]["steps"]]
    assert 'make release-check TAG="$TAG"' in steps and "make wheel" in steps
    assert "id-token" not in jobs["build"]["permissions"]


def test_a_file_that_a_distribution_lacks_is_seen(tmp_path: Path) -> None:
    assert "LICENSE-text" in lacking(set())
    everything = set(lacking(set()))
    assert lacking(everything - {"Makefile"}) == ["Makefile"] and lacking(everything) == []
    for name, text in (("a.whl", "1"), ("b.whl", "2")):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr("same.py", "x")
            wheel.writestr("other.py", text)
            wheel.writestr("x.dist-info/RECORD", text)
    one, other = (contents(tmp_path / name) for name in ("a.whl", "b.whl"))
    assert differences(one, other) == ["other.py"]
    assert differences(one, one) == []


# --- other places ---------------------------------------------------------------------------------


def test_editors_and_containers_use_what_make_installs() -> None:
    read = {path: json.loads((ROOT / path).read_text(encoding="utf-8")) for path in PLACES}
    container, settings, extensions = (read[path] for path in PLACES)
    assert container["postCreateCommand"] == "make .venv/.installed"
    assert container["containerEnv"]["JUPYTER_CONFIG_PATH"].endswith("/.jupyter")
    wanted = container["customizations"]["vscode"]["extensions"]
    assert wanted == extensions["recommendations"] and "caenrigen.jupytext-sync" in wanted
    assert settings["python.defaultInterpreterPath"] == "${workspaceFolder}/.venv/bin/python"
    assert settings["editor.rulers"] == [PYPROJECT["tool"]["ruff"]["line-length"]]


def test_binder_needs_no_script_after_the_build() -> None:
    """`-e .` installs the package, and a session's home is the clone, whose .jupyter it reads."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert {"pip": ["-e ."]} in environment["dependencies"]
    assert not (ROOT / "postBuild").exists() and not (ROOT / "binder").exists()
    overrides = ROOT / ".jupyter" / "labconfig" / "default_setting_overrides.json"
    (notification,) = json.loads(overrides.read_text(encoding="utf-8")).values()
    assert notification["fetchNews"] == "false"
    assert "NotebookNotary" in (ROOT / ".jupyter" / "jupyter_server_config.py").read_text()
