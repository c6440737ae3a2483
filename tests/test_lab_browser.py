"""JupyterLab as a reader meets it: `make lab` in a copy of the repository, in a real browser.

The page is driven by the ids of Lab's commands, which stay, and not by its style sheets' names.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browsers import DESKTOP, ROOT, browser, missing
from learners import solution

COPIED = ("notebooks", "transformer", "figures", ".jupyter", "Makefile", "pyproject.toml")
COPIED += ("constraints.txt",)
WAIT = 120  # seconds, for one step on a machine that is busy
TOKEN = secrets.token_hex(16)
PRIVATE = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
PRIVATE += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
ATTENTION = "notebooks/03_attention.ipynb"
RESULT = "different rows before: 8 · after: 1"
TAIL = "return weights.where(mask.any(-1, keepdim=True), 0.0)"
OTHER = [
    "%load_ext autoreload\n%autoreload 2",
    "import sys\n\nimport torch\nimport transformer\n"
    "from transformer.attention import attention_weights",
    "print(sys.executable)\nprint(transformer.__file__)",
    "row = attention_weights(torch.zeros(1, 2), torch.zeros(4, 2), torch.ones(1, 4) > 0)\n"
    'print("sum", round(float(row.sum()), 3))',
]
IS_SHOWN = """path => {
  const widget = window.jupyterapp?.shell?.currentWidget;
  return widget?.context?.path === path && widget.context.isReady;
}"""
HAS_KERNEL = """() => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
HAS_RUN = """() => {
  const widget = window.jupyterapp.shell.currentWidget;
  const code = widget.content.widgets.filter(c => c.model.type === 'code');
  return widget.sessionContext.session.kernel.status === 'idle'
    && code.every(c => !c.model.sharedModel.source.trim()
      || (c.model.executionCount && c.model.executionState !== 'running'));
}"""


def eventually(check: Callable[[], Any], seconds: float = WAIT) -> Any:
    """Return what a check returns as soon as it is true, or what it returned last."""
    end = time.monotonic() + seconds
    while True:
        found = check()
        if found or time.monotonic() > end:
            return found
        time.sleep(0.1)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository, and write a notebook that uses the library, and one of a stranger."""
    root = tmp_path_factory.mktemp("clone")
    for name in COPIED:
        if (ROOT / name).is_dir():
            dropped = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(ROOT / name, root / name, ignore=dropped, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(ROOT / name, root / name)
    for module in root.glob("transformer/*.py"):  # as after a checkout: no module is older
        module.touch()
    cells = [nbformat.v4.new_code_cell(source) for source in OTHER]
    stranger = nbformat.v4.new_code_cell("1", execution_count=1)
    html = {"text/html": "<script>document.title = 'stranger'</script>"}
    stranger.outputs = [nbformat.v4.new_output("display_data", html)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    for name, content in (("other", cells), ("stranger", [stranger])):
        notebook = nbformat.v4.new_notebook(cells=content, metadata=kernel)
        nbformat.write(notebook, root / f"{name}.ipynb")
    return root


@pytest.fixture(scope="module")
def environment(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a reader who has no settings of Jupyter, and has this clone."""
    home = tmp_path_factory.mktemp("home")
    private = {name: str(home / name.lower()) for name in PRIVATE}
    path = os.pathsep.join(filter(None, [str(clone), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **private, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def course(clone: Path, environment: dict[str, str]) -> Callable[..., Callable[[], str]]:
    """Start a command of the course in the clone; what is returned waits for what it prints."""

    def start(*words: str) -> Callable[[], str]:
        running = subprocess.Popen(
            [sys.executable, "-m", "transformer", "course", *words],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

        def result() -> str:
            printed = running.communicate(timeout=WAIT)[0]
            assert running.returncode == 0, printed
            return printed

        return result

    return start


@pytest.fixture(scope="module")
def folder(clone: Path, course: Callable[..., Callable[[], str]]) -> Callable[[], str]:
    """Start to write a learner's folder, while the server starts."""
    return course("start", "mine")


@pytest.fixture(scope="module")
def checks() -> list[Callable[[], str]]:
    """What has been checked of the learner's folder; each waits for its result."""
    return []


@pytest.fixture(scope="module")
def server(
    chromium: Any, clone: Path, environment: dict[str, str], folder: Callable[[], str]
) -> Iterator[str]:
    """Run `make lab` in the clone, with this Python in place of .venv, and return its address."""
    if not shutil.which("make"):
        missing("no make")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        *("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"),
        *(f"--ServerApp.port={port}", f"--IdentityProvider.token={TOKEN}"),
        "--LabApp.expose_app_in_browser=True",
    ]
    command = ["make", "-o", ".venv/.installed", "lab", f"RUN={sys.executable}"]
    address = f"http://127.0.0.1:{port}"
    log = clone / "lab.log"
    with log.open("w") as output:
        lab = subprocess.Popen(
            [*command, f"ARGS={' '.join(options)}"],
            cwd=clone,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def answers() -> bool:
            assert lab.poll() is None, log.read_text()
            try:
                url = f"{address}/api/status?token={TOKEN}"
                return urllib.request.urlopen(url, timeout=2).status == 200
            except OSError:
                return False

        try:
            assert eventually(answers), log.read_text()
            yield address
        finally:
            os.killpg(lab.pid, signal.SIGTERM)
            lab.wait(20)


class Lab:
    """A page of JupyterLab, and the notebook in front of it."""

    def __init__(self, page: Any, address: str):
        self.page = page
        self.address = address

    def load(self, path: str) -> None:
        """Load the page; an empty path is what `make lab` opens."""
        self.page.goto(f"{self.address}/{path}?token={TOKEN}")
        self.page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget")

    def show(self, path: str) -> None:
        """Bring a notebook to the front, and open it if it is not yet."""
        self.command("docmanager:open", {"path": path})
        self.page.wait_for_function(IS_SHOWN, arg=path)

    def command(self, name: str, options: dict | None = None) -> None:
        execute = "([name, o]) => window.jupyterapp.commands.execute(name, o).then(() => null)"
        self.page.evaluate(execute, [name, options or {}])

    def ask(self, code: str, argument: Any = None) -> Any:
        """Return what JavaScript says about the open notebook, `nb`."""
        start = "async arg => { const nb = window.jupyterapp.shell.currentWidget.content; return "
        return self.page.evaluate(f"{start}{code} }}", argument)

    def run_all(self) -> str:
        """Run every cell, and return the text that the cells print."""
        self.begin()
        return self.end()

    def begin(self) -> None:
        """Begin to run every cell."""
        self.page.wait_for_function(HAS_KERNEL)
        self.command("notebook:run-all-cells")

    def end(self) -> str:
        """Wait until every cell has run, and return the text that the cells print."""
        self.page.wait_for_function(HAS_RUN)
        return self.printed()

    def printed(self) -> str:
        return self.ask(
            "nb.widgets.filter(c => c.model.type === 'code').flatMap(c => c.model.outputs.toJSON())"
            ".map(o => [o.text ?? o.data?.['text/plain'] ?? o.evalue ?? ''].flat().join(''))"
            ".join('')"
        )

    def errors(self) -> list[str]:
        return self.ask(
            "nb.widgets.filter(c => c.model.type === 'code').flatMap(c => c.model.outputs.toJSON())"
            ".filter(o => o.output_type === 'error').map(o => o.evalue)"
        )

    def sources(self) -> list[str]:
        return self.ask("nb.widgets.map(c => c.model.sharedModel.source)")

    def replace(self, old: str, new: str) -> None:
        """Edit the one cell that has a text."""
        (place,) = [n for n, source in enumerate(self.sources()) if old in source]
        source = self.sources()[place].replace(old, new)
        self.ask("nb.widgets[arg[0]].model.sharedModel.setSource(arg[1])", [place, source])

    def trusted(self) -> bool:
        return self.ask(
            "nb.widgets.every(c => c.model.type !== 'code' || c.model.trusted)",
        )

    def dialogs(self) -> list[str]:
        """Return the texts of all that lies over the page: dialogs and messages."""
        over = self.page.locator(".jp-Dialog, .Toastify__toast")
        return over.all_inner_texts()


@pytest.fixture(scope="module")
def page(chromium: Any, server: str) -> Iterator[Lab]:
    """Open what `make lab` opens."""
    context = chromium.new_context(viewport=DESKTOP)
    context.set_default_timeout(1000 * WAIT)
    found = Lab(context.new_page(), server)
    found.load("")
    yield found
    context.close()


@pytest.fixture
def lab(page: Lab) -> Iterator[Lab]:
    """Return the page, and see at the end that it has asked nothing."""
    yield page
    assert page.dialogs() == []


def test_make_lab_opens_the_first_chapter(lab: Lab) -> None:
    lab.page.wait_for_function(IS_SHOWN, arg="notebooks/00_introduction.ipynb")
    assert lab.sources()[0].startswith("# 0 · Introduction")
    assert lab.trusted()
    lab.show("other.ipynb")
    lab.begin()  # it imports PyTorch: the next test goes on meanwhile


def test_the_chapters_are_trusted_and_a_strangers_notebook_is_not(lab: Lab) -> None:
    lab.show("notebooks/12_inference.ipynb")
    assert lab.trusted()
    frame = lab.page.frame_locator(".jp-Notebook iframe")
    frame.locator(".atlas button").nth(2).wait_for(state="attached")  # the script has run
    lab.show("stranger.ipynb")
    assert not lab.trusted()


def test_the_kernel_has_the_library_of_the_clone(lab: Lab, clone: Path) -> None:
    lab.show("other.ipynb")
    printed = lab.end()
    assert f"{sys.executable}\n{clone}/transformer/__init__.py\nsum 1.0" in printed


def test_a_learners_cell_is_in_the_module(
    lab: Lab, clone: Path, folder: Callable[[], str], course: Callable, checks: list
) -> None:
    assert "mine" in folder()
    module = clone / "mine" / "attention.py"
    assert solution("3.1").strip() not in module.read_text(encoding="utf-8")
    lab.show(f"mine/{ATTENTION}")
    (cell,) = [text for text in lab.sources() if "@borrow\ndef attention_weights" in text]
    lab.replace(cell, solution("3.1"))
    lab.command("docmanager:save")
    assert eventually(lambda: solution("3.1").strip() in module.read_text(encoding="utf-8"))
    checks.append(course("check", "3.1"))  # it takes a while: the next test goes on meanwhile


def test_a_chapter_its_module_and_another_notebook(lab: Lab, clone: Path) -> None:
    module = clone / "transformer" / "attention.py"
    before = module.read_text(encoding="utf-8")
    lab.show(ATTENTION)
    printed = lab.run_all()
    assert lab.errors() == []
    assert RESULT in printed

    lab.replace(TAIL, f"{TAIL} * 3")
    lab.command("docmanager:save")
    assert eventually(lambda: f"{TAIL} * 3" in module.read_text(encoding="utf-8"))
    assert module.read_text(encoding="utf-8") == before.replace(TAIL, f"{TAIL} * 3")
    lab.show("other.ipynb")
    assert "sum 3.0" in lab.run_all()

    module.write_text(before.replace(TAIL, f"{TAIL} * 5"), encoding="utf-8")
    later = time.time() + 2
    os.utime(module, (later, later))
    lab.show(ATTENTION)
    lab.command("docmanager:reload")
    assert eventually(lambda: f"{TAIL} * 5" in "\n".join(lab.sources()))
    assert RESULT in lab.printed(), "outputs are kept"
    lab.show("other.ipynb")
    assert "sum 5.0" in lab.run_all()


def test_what_the_learner_has_saved_passes(lab: Lab, checks: list[Callable[[], str]]) -> None:
    (check,) = checks
    (row,) = [line for line in check().splitlines() if line.startswith("  3.1 ")]
    assert row.split()[-1] == "yours"


def test_a_question_would_be_seen(page: Lab) -> None:
    """The control of `dialogs`; and what keeps Jupyter from asking is the setting of `make lab`."""
    setting = "window.jupyterapp.serviceManager.settings.fetch(arg).then(s => s.schema.properties)"
    found = page.ask(f"({setting})", "@jupyterlab/apputils-extension:notification")
    assert found["fetchNews"]["default"] == "false"
    question = {"message": "Would you like news?", "type": "info"}
    page.command("apputils:notify", {**question, "options": {"autoClose": False}})
    assert eventually(page.dialogs) == [question["message"]]
