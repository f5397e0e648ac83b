import ast
import hashlib
import io
import json
import subprocess
import sys
import zipfile

import pytest

from analysis.export.archive import RUNNER, pack
from analysis.export.examples import import_runner
from helpers.exported_runs import exported, lines_of, predicted, random_run

CASES = [
    ("translation", "rnn"),
    ("language_modeling", "rnn"),
    ("classification", "transformer_xl"),  # reads segments: a program for each length
    ("masked_language_modeling", "transformer"),
]
SLOW_CASES = [
    *(("tagging", "rnn"), ("relation_extraction", "transformer")),
    *(("translation", "transformer"), ("translation", "transformer_xl")),
    # Cases above cover its parts: beams of a language model, and segments.
    ("language_modeling", "transformer_xl"),
    ("language_modeling", "transformer"),
    *(("classification", "rnn"), ("classification", "transformer")),
    *(("tagging", "transformer"), ("tagging", "transformer_xl")),
    *(("relation_extraction", "rnn"), ("relation_extraction", "transformer_xl")),
    ("masked_language_modeling", "rnn"),
    ("masked_language_modeling", "transformer_xl"),
]
TAGGER = ("run", "tags", "encoder", "arrays", "tokenizer", "symbol_tokenizer")
# Runs files as `python FILE ...` does, one by one: importing jax takes longest.
DRIVER = """
import contextlib, io, json, runpy, sys

for name in ("models", "tasks", "data", "analysis", "flax"):
    try:
        __import__(name)
    except ImportError:
        continue
    assert name == "flax", f"{name} can be imported"
assert not [path for path in sys.path if path.startswith(sys.argv[1])]
for path, arguments, text in json.loads(sys.stdin.read()):
    sys.argv = [path, *arguments]
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    for name, module in list(sys.modules.items()):
        if ".zip" in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]
    output = io.TextIOWrapper(io.BytesIO(), newline="\\n")
    with contextlib.redirect_stdout(output):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as error:
            code = error.code
    output.flush()
    print(json.dumps([code, output.buffer.getvalue().decode()]))
"""


def run_isolated(folder, commands):
    """Exit codes and outputs of exported files in a process without the project."""
    script = folder / "driver.py"
    script.write_text(DRIVER)
    root = __file__.partition("/tests/")[0]
    done = subprocess.run(
        [sys.executable, "-I", script, f"{root}/tests"],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )
    assert not done.returncode, done.stderr
    return list(map(json.loads, done.stdout.splitlines()))


def run_cases(folder, cases):
    """By case: the outputs of predict.py, then code and output of each command."""
    expected, commands = [], []
    for task, name in cases:
        run, lines = random_run(folder, task, name), lines_of(task)
        path = folder / f"{task}-{name}.zip"
        path.write_bytes(exported(run, [line for line in lines if line]))
        expected.append(predicted(run, lines))
        text = "".join(f"{line}\n" for line in lines)
        commands += [(str(path), [], text), (str(path), ["--verify"], "")]
    found = run_isolated(folder, commands)
    pairs = zip(found[::2], found[1::2], strict=True)
    return dict(zip(cases, zip(expected, pairs, strict=True), strict=True))


def check(result):
    """Outputs are those of predict.py, and those that the file holds."""
    expected, ((code, text), (verified, count)) = result
    assert not code, text
    assert text.split("\n")[:-1] == expected
    assert any(map(str.strip, expected))  # the model says something
    right, _, total, *_ = count.split()
    assert (verified, right) == (0, total)
    assert int(total) > 1


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_cases(tmp_path_factory.mktemp("exported"), CASES)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_outputs_without_the_project_equal_those_of_predict(results, case):
    check(results[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_CASES, ids="-".join)
def test_outputs_of_other_architectures_equal_those_of_predict(tmp_path, case):
    check(run_cases(tmp_path, [case])[case])


@pytest.mark.slow
def test_greedy_outputs_have_the_scores_of_predict(tmp_path):
    run = random_run(tmp_path, "translation", "rnn", **{"decode.method": "greedy"})
    lines = ["w1 w2", "w3"]
    expected = run.experiment.task.predict_n_best(*run.inputs(lines))
    with import_runner() as runner:
        bundle = runner.Bundle(exported(run, lines), "the exported file")
        found = list(bundle.outputs(lines, "greedy", None))
    for row, ((text, score),) in zip(found, expected, strict=True):
        assert row == [(text, pytest.approx(score, rel=1e-5))]


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """The exported file of a tagger, with a score card."""
    folder = tmp_path_factory.mktemp("small")
    run = random_run(folder / "run", "tagging", "rnn", **{"data.label_column": None})
    card = {"scores": {"f1": {"value": 12.5}}, "protocol": {"crf": False}}
    run.directory.write_json("eval/test-7.json", card)
    return exported(run, lines_of("tagging")[:1])


def test_every_changed_byte_is_refused(small_file):
    with import_runner() as runner:
        runner.Bundle(small_file, "model.zip")
        for place in [*range(0, len(small_file), 997), len(small_file) - 1]:
            changed = bytearray(small_file)
            changed[place] ^= 1
            with pytest.raises(ValueError, match=r"model\.zip is damaged"):
                runner.Bundle(bytes(changed), "model.zip")


def test_a_damaged_file_is_refused_in_one_line(small_file, tmp_path):
    start = small_file.index(b"safetensors") + 5000  # within the weights
    files = {
        "changed.zip": small_file[:start] + b"?" + small_file[start + 1 :],
        "short.zip": small_file[:start],
        "empty.zip": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    commands = [[RUNNER / "run.py", name, "label"] for name in files]
    for command in (*commands, ["changed.zip", "label"]):
        done = subprocess.run(
            [sys.executable, "-I", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "damaged" in done.stderr


def test_the_file_holds_cards_scores_and_nothing_pickled(small_file):
    with zipfile.ZipFile(io.BytesIO(small_file)) as archive:
        assert not archive.testzip()
        names = set(archive.namelist())
        card = archive.read("README.md").decode()
        cards = json.loads(archive.read("score_cards.json"))
        modules = {n: archive.read(n).decode() for n in names if n.endswith(".py")}
    assert {"weights.safetensors", "programs/predict.bin", "config.json"} <= names
    assert cards["test-7"]["scores"] == {"f1": {"value": 12.5}}
    for line in ("| f1 | 12.5 |  |", "- crf: False", "## Intended use", "not stated"):
        assert line in card
    assert set(modules) == {"__main__.py", *(f"{name}.py" for name in TAGGER)}
    assert len(modules["run.py"].splitlines()) <= 150
    assert sum(map(count_code, modules.values())) <= 200
    assert small_file[-64:].decode() == hashlib.sha256(small_file[:-64]).hexdigest()


def count_code(text):
    """Number of lines that are neither blank nor comments nor docstrings."""
    kinds, hidden = (ast.Module, ast.ClassDef, ast.FunctionDef), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and ast.get_docstring(node):
            hidden |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(map(str.strip, text.splitlines()), start=1)
    return sum(bool(s) and s[0] != "#" and n not in hidden for n, s in lines)


def test_equal_runs_give_equal_files(small_file):
    with zipfile.ZipFile(io.BytesIO(small_file)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert pack(files) == pack(dict(reversed(files.items()))) == small_file
