"""What pages say is what the data has: tables, times, glossary, names of checks and of the zoo."""

import json
import re
import statistics
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from test_layout import too_wide

from transformer import checks, zoo
from transformer.course.exercises import all_exercises, exercise
from transformer.course.lessons import LESSONS, Lesson, lesson
from transformer.data import Batch
from transformer.model import Config, Transformer
from transformer.training import Trainer, TrainingConfig, learning_rate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))

import pages  # noqa: E402

from benchmarks.ablations import no_warmup  # noqa: E402

INSTRUCTORS = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")


def prose(one: Lesson) -> str:
    """Return the text of a chapter's markdown cells."""
    path = ROOT / "notebooks" / f"{one.notebook}.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name, (_, where) in pages.TABLES.items() for place in where],
)
def test_a_table_is_what_the_data_makes(name: str, place: str) -> None:
    path = ROOT / place
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
    if path.suffix == ".py":
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    assert pages.between(name, text) == pages.TABLES[name][0](), "run: make pages"


def test_a_table_is_put_between_its_comments() -> None:
    page = "before\n<!-- times -->\nold\n<!-- /times -->\nafter\n"
    new = pages.replaced("times", page, "| new |")
    assert pages.between("times", new) == "| new |"
    assert new.startswith("before\n") and new.endswith("\nafter\n")
    with pytest.raises(ValueError, match="no table cuts"):
        pages.replaced("cuts", page, "x")


@pytest.mark.parametrize("path", ["page.md", "module.py", "notebook.ipynb"])
def test_a_table_is_written_into_each_kind_of_file(path: str, tmp_path: Path) -> None:
    page = "a\n\n<!-- cuts -->\nold\n<!-- /cuts -->\n\nb"
    where = tmp_path / path
    if where.suffix == ".ipynb":
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(page)])
        nbformat.write(notebook, where)
    else:
        text = pages.as_comment(page) if where.suffix == ".py" else page
        where.write_text(f"{text}\n", encoding="utf-8")
    pages.write("cuts", where)
    text = where.read_text(encoding="utf-8")
    assert "old" not in text
    assert "| a week | 0 to 12 |" in text


def test_the_times_are_those_of_the_exercises() -> None:
    reading = sum(one.minutes for one in LESSONS if one.number in pages.CORE)
    doing = sum(task.minutes for task in all_exercises() if task.chapter in pages.CORE)
    last = f"| **{pages.hours(doing)}** | **{pages.hours(reading + doing)}** |"
    assert [row for row in pages.times().splitlines() if row.endswith(last)]
    assert 9 * 150 < reading + doing < 11 * 150, "these are no ten evenings of two and a half hours"


@pytest.mark.parametrize(("name", "most"), [("90 minutes", 90), ("a day", 360), ("a week", 1500)])
def test_a_shorter_course_fits_its_time(name: str, most: int) -> None:
    chapters, tasks = pages.CUTS[name]
    minutes = sum(lesson(n).minutes for n in chapters) + sum(exercise(t).minutes for t in tasks)
    assert 0.75 * most < minutes <= most


def test_ablations_show_what_chapter_9_says() -> None:
    rows = json.loads(pages.OUT.read_text(encoding="utf-8"))
    exact = {name: [r["exact"] for r in rows if r["missing"] == name] for name in pages.VARIANTS}
    losses = {name: [r["loss"] for r in rows if r["missing"] == name] for name in pages.VARIANTS}
    needed = {"the residual", "the causal mask"}
    assert all(max(exact.pop(name)) < 2 for name in needed)
    assert all(statistics.mean(found) > 85 for found in exact.values())
    assert max(losses["the causal mask"]) < 0.1 < min(losses["the residual"])


def test_without_warmup_only_the_rise_is_missing() -> None:
    config = TrainingConfig(warmup=2, peak_lr=0.1)
    model = Transformer(Config(8, d_model=4, n_heads=1, n_layers=1, d_ff=4))
    trainer = Trainer(model, config)
    no_warmup(trainer)
    batch = Batch(torch.tensor([[3, 2]]), torch.tensor([[1, 4, 2]]))
    rates = []
    for _ in range(4):
        trainer.step(batch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == [0.1, 0.1, learning_rate(3, 2, 0.1), learning_rate(4, 2, 0.1)]


# --- chapters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", LESSONS, ids=lambda one: one.notebook)
def test_a_chapter_states_the_lessons_needs_and_minutes(one: Lesson) -> None:
    found = re.search(r"\*\*What you need\*\*(.+?)In\s+the\s+paper", prose(one), re.DOTALL)
    if found is None:
        assert one.number > max(pages.CORE)  # of the optional ones, some do not say
        return
    linked = {int(number) for number in re.findall(r"\]\((\d\d)_\w+\.ipynb\)", found[1])}
    minutes = re.search(r"About\s+(\d+)\s+minutes", found[1])
    assert linked == set(one.needs)
    assert minutes or re.search(r"About\s+an\s+hour", found[1])
    assert (int(minutes[1]) if minutes else 60) == one.minutes


def glossary() -> list[tuple[str, list[str]]]:
    """Return the terms of chapter 0's glossary, with the notebooks to which each links."""
    section = prose(lesson(0)).partition("## Glossary")[2].partition("\n\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")]
    return [(row[0].strip(), re.findall(r"\]\((\w+\.ipynb)\)", row[2])) for row in rows[1:]]


def test_the_glossary_links_to_chapters_that_have_the_term() -> None:
    texts = {f"{one.notebook}.ipynb": prose(one) for one in LESSONS}
    terms = glossary()
    assert len(terms) > 40
    assert [term for term, _ in terms] == sorted((t for t, _ in terms), key=str.lower)
    for term, links in terms:
        assert links, term
        for link in links:
            words = re.sub(r"\s+", " ", texts[link].partition("## Glossary")[0]).lower()
            for word in re.sub(r" \(.*\)", "", term).lower().split(", "):
                assert word.removesuffix(" network") in words, f"{link} does not speak of {word}"


# --- the instructors' page ------------------------------------------------------------------------


def test_the_readme_links_to_the_instructors_page() -> None:
    assert "(INSTRUCTORS.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_instructors_page_is_wrapped() -> None:
    assert too_wide(f"# %% [markdown]\n{INSTRUCTORS}") == []


def test_what_the_instructors_page_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", INSTRUCTORS):
        assert target.startswith("http") or (ROOT / target).exists(), target


def misconceptions() -> list[tuple[str, str, str]]:
    """Return chapter, check and member of each row."""
    pattern = r"^\| (\d+) \| .+ \| `(\w+)` \| `(\w+\.\w+)` \|$"
    return re.findall(pattern, INSTRUCTORS, re.MULTILINE)


def test_each_misconception_names_a_check_and_the_member_that_it_catches() -> None:
    rows = misconceptions()
    assert {int(number) for number, _, _ in rows} == {task.chapter for task in all_exercises()}
    assert len(rows) == len(re.findall(r"^\| \d+ \| \D", INSTRUCTORS, re.MULTILINE)) > 25
    for number, check, name in rows:
        assert check in checks.__all__, check
        assert zoo.member(name).check == check, name
        assert name.startswith((f"ch{int(number):02}_", "scoring."))


def test_exercises_that_the_page_names_exist() -> None:
    prose_only = re.sub(r"^\|.*$", "", INSTRUCTORS, flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\d.])(\d{1,2}\.\d)(?![\d.]*\d)", prose_only)) - {"3.10"}
    assert named and named <= {task.id for task in all_exercises()}


def test_options_that_the_page_names_exist() -> None:
    help_text = (ROOT / "transformer" / "cli" / "course_command.py").read_text(encoding="utf-8")
    for option in re.findall(r"`(--[a-z]+)`", INSTRUCTORS):
        assert f'"{option}"' in help_text, option
