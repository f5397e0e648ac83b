"""The quickstart notebook: clean as stored, and executed on a small corpus."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from helpers.entry_points import ROOT
from utils.notebook import check_packages, install_packages, read_requirements

PATH = ROOT / "notebooks" / "quickstart.ipynb"
MODELS = ["rnn", "transformer", "transformer_xl"]
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
COLAB = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('colab')"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def cell(notebook, name):
    return next(cell for cell in notebook.cells if cell.id == name)


def execute(notebook, folder):
    """Executes a notebook in a kernel of this interpreter."""
    manager = KernelManager()
    launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager._kernel_spec = KernelSpec(argv=launch, language="python")
    manager.transport = "ipc"
    manager.ip = str(folder / "kernel")
    resources = {"metadata": {"path": str(PATH.parent)}}
    client = NotebookClient(notebook, km=manager, resources=resources, timeout=300)
    try:
        return client.execute()
    finally:
        manager.shutdown_kernel(now=True)  # the client leaves what it was given


def outputs(notebook, name, kind):
    """Contents of a cell's outputs of a media type."""
    data = [output.get("data", {}) for output in cell(notebook, name).outputs]
    return [each[kind] for each in data if kind in each]


def write_corpus(folder):
    folder.mkdir()
    for split, size in {"train": 40, "valid": 6, "test": 6}.items():
        lines = [
            f"{WORDS[k % 10]} {WORDS[k % 7]} {WORDS[k % 3]}\n" for k in range(size)
        ]
        (folder / f"{split}.en").write_text("".join(lines))
        (folder / f"{split}.de").write_text("".join(lines).upper())


def test_the_notebook_is_stored_without_outputs_and_with_stable_ids(notebook):
    nbformat.validate(notebook)
    text = PATH.read_text(encoding="utf8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    for each in notebook.cells:
        assert re.fullmatch("[a-z]+(-[a-z]+)*", each.id)
        assert each.cell_type == "markdown" or each.outputs == []
        assert each.get("execution_count") is None


def test_links_and_files_of_the_notebook_exist(notebook):
    text = "".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert len(links) > 5
    for target in [
        *links,
        *(f"../{name}" for name in re.findall(r"`(\w+\.py)`", text)),
    ]:
        assert (PATH.parent / target).exists(), target


@pytest.mark.parametrize(
    "models", [["transformer"], pytest.param(MODELS, marks=pytest.mark.slow)], ids=len
)
def test_every_cell_runs_and_shows_what_it_says(notebook, tmp_path, models):
    write_corpus(tmp_path / "mine")
    changes = {
        "data.name": "parallel_text/en-de",
        "data.source_dir": str(tmp_path / "mine"),
        "data.dir": str(tmp_path / "data"),
        "data.vocab_size": 60,
        "data.tokens_per_batch": 64,
        "decode.max_length": 4,
    }
    tiny = "" if models == MODELS else f"MODELS = {models}\n"
    tiny += (
        f"STEPS, WIDTH, CHANGES = 4, 8, {changes!r}\n"
        f"PHRASES = ['one two', 'three']\nWORKDIR = Path({str(tmp_path / 'runs')!r})"
    )
    place = notebook.cells.index(cell(notebook, "settings")) + 1
    notebook.cells.insert(place, nbformat.v4.new_code_cell(tiny, id="tiny"))
    shown = "print(repr(translations))"
    notebook.cells.append(nbformat.v4.new_code_cell(shown, id="shown"))
    execute(notebook, tmp_path)
    assert outputs(notebook, "curves", "image/png")
    for name in ("attention", "report"):
        (page,) = outputs(notebook, name, "text/html")
        assert page.startswith("<iframe srcdoc=")
        assert "&lt;html" in page
    (table,) = outputs(notebook, "translate", "text/markdown")
    assert len(table.splitlines()) == 2 + len(models)
    change = cell(notebook, "change").outputs[0].text
    assert change == "decode.method is 'greedy' there and 'beam' here\n"
    translations = eval(cell(notebook, "shown").outputs[0].text)
    assert list(translations) == models
    for texts in translations.values():
        assert len(texts) == 2
        assert all(isinstance(text, str) for text in texts)
    assert (tmp_path / "runs" / "report.html").stat().st_size > 1000


def test_a_kernel_that_lacks_a_package_gives_one_line_that_says_what_to_do(
    notebook, tmp_path
):
    hide = nbformat.v4.new_code_cell("import sys\nsys.modules['flax'] = None")
    notebook.cells = [
        hide,
        *notebook.cells[: notebook.cells.index(cell(notebook, "setup")) + 1],
    ]
    with pytest.raises(CellExecutionError):
        execute(notebook, tmp_path)
    (error,) = cell(notebook, "setup").outputs
    (line,) = error.traceback
    assert line.startswith("error: this kernel cannot import flax")
    assert line.count("\n") == 0
    assert f"{sys.executable} -m pip install -r {ROOT}/requirements.txt" in line


def test_a_python_without_any_package_is_told_to_install_them():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom utils import notebook\n"
        f"try: notebook.check_packages(Path({str(ROOT)!r}))\n"
        "except ValueError as error: print(error._render_traceback_())"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = eval(done.stdout)
    assert re.match(
        r"error: this kernel has no jax, flax, .* and \d+ more: run `", line
    )


def test_a_folder_outside_a_checkout_gives_one_line(notebook, tmp_path):
    source = cell(notebook, "setup").source
    code = (
        f"try: exec({source!r})\n"
        "except Exception as error: print(error._render_traceback_())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "is not in a checkout: start Jupyter in one, or set ADDRESS" in done.stdout


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Records the arguments and constraints of pip, which installs nothing."""
    calls = []

    def run(arguments, **_):
        constraints = Path(arguments[-1]).read_text().splitlines()
        calls.append((Path(arguments[-3]).name, constraints))
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr("utils.notebook.subprocess.run", run)
    return calls


def test_a_supported_jax_of_a_hosted_notebook_is_kept(pip):
    install_packages(ROOT)
    ((file, constraints),) = pip
    assert file == "requirements.txt"
    names = {line.partition("==")[0] for line in constraints}
    assert {"jax", "jaxlib"} <= names
    assert not {"jaxtyping", "flax"} & names


@pytest.mark.parametrize(
    ("program", "has_tpu", "file"),
    [
        ("nvidia-smi", False, "cuda.txt"),
        (None, True, "tpu.txt"),
        (None, False, "requirements.txt"),
    ],
)
def test_another_jax_is_replaced_by_that_of_the_accelerator(
    pip, monkeypatch, program, has_tpu, file
):
    monkeypatch.setattr("utils.notebook.is_allowed", lambda *_: False)
    monkeypatch.setattr("utils.notebook.shutil.which", lambda _: program)
    monkeypatch.setattr("utils.notebook.has_tpu", lambda: has_tpu)
    install_packages(ROOT)
    assert pip == [(file, [])]


def test_a_package_that_was_replaced_while_in_use_asks_for_a_restart(pip, monkeypatch):
    versions = iter(range(1000))
    monkeypatch.setattr(
        "utils.notebook.installed_version", lambda _: f"1.{next(versions)}"
    )
    with pytest.raises(ValueError, match="jax and numpy was replaced while in use"):
        install_packages(ROOT)


def test_a_version_that_is_not_allowed_is_named(monkeypatch):
    allowed = read_requirements(ROOT / "requirements.txt")["jax"]
    monkeypatch.setattr("utils.notebook.installed_version", lambda _: "0.4.1")
    with pytest.raises(
        ValueError, match=re.escape(f"has jax 0.4.1, and jax{allowed} is")
    ):
        check_packages(ROOT)
