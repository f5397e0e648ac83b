import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from analysis.export import examples
from analysis.export.programs import search_configs
from analysis.imported_run import write_run
from configs import base
from experiment.init_from import InitialRun
from experiment.restore import open_run
from helpers.entry_points import assert_refused, run
from helpers.exported_runs import random_run, tokenizers_of
from training.run_dir import RunDirectory
from utils.errors import UserError


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run directory of a language model."""
    folder = tmp_path_factory.mktemp("command")
    made = random_run(folder, "language_modeling", "rnn")
    cfg, params = made.experiment.cfg, made.variables["params"]
    path = folder / "run"
    write_run(str(path), cfg, params, tokenizers_of(cfg.task)["text"], {})
    (folder / "inputs.txt").write_text("w1 w2\n\nw3\n")
    return path


def export(workdir, output, *flags):
    inputs = f"--inputs={workdir.parent / 'inputs.txt'}"
    workdir, output = f"--workdir={workdir}", f"--output={output}"
    return run("analysis/export/__main__.py", workdir, output, inputs, *flags)


def test_the_command_writes_a_file_that_verifies_itself(workdir, tmp_path):
    output = tmp_path / "model.zip"
    done = export(workdir, output, "--license=Apache-2.0")
    assert not done.returncode, done.stderr.decode()
    assert "weights.safetensors" in done.stdout.decode()
    checked = run(output, "--verify")
    assert checked.stdout.decode() == "6 of 6 outputs equal\n"  # of three searches
    told = run(output, "translate", given=b"w1\n")
    assert_refused(told, "'continue' only")
    assert_refused(run(output, "--seed=-1"), "--seed=-1 must be from 0 to 4294967295")
    marked = run(output, "--search=greedy", given="\ufeffw1 w2\nw1 w2\n".encode())
    first, second, _ = marked.stdout.decode().split("\n")
    assert first == second
    assert_refused(export(workdir, output), str(output), "exists")


def test_a_beam_search_is_exported_beside_any_search_of_a_run():
    options = base.get_config("rnn").decode
    for changes in (
        {"method": "greedy", "beam_groups": 3, "n_best": 1},
        {"method": "sample", "beam_groups": 4, "n_best": 6},
    ):
        options.update(changes)
        beam = search_configs(options)["beam"]
        assert beam.beam_groups <= 1
        assert beam.n_best == options.n_best
    options.update(method="beam", beam_groups=2, n_best=2, diversity_penalty=0.5)
    assert search_configs(options)["beam"].beam_groups == 2


def test_separators_of_lines_in_samples_are_text(tmp_path):
    directory = RunDirectory(tmp_path)
    rows = [{"source": "w1\u2028w2"}, {"source": "w3\x85"}]
    directory.write_lines("samples/test-7.jsonl", rows)
    found = examples.example_inputs(SimpleNamespace(directory=directory), None, 9)
    assert found == ["w1\u2028w2", "w3\x85"]


def test_weights_alone_are_read_as_a_run(workdir, tmp_path):
    folder = tmp_path / "weights"
    done = export(workdir, folder, "--format=safetensors")
    assert not done.returncode, done.stderr.decode()
    before, after = open_run(str(workdir)), open_run(str(folder))
    for one, other in zip(
        jax.tree.leaves(before.variables), jax.tree.leaves(after.variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    cfg = before.experiment.cfg.copy_and_resolve_references()
    cfg.init_from = str(folder)
    assert InitialRun.open(cfg).run.steps == before.steps
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        open_run(str(folder))


def test_mistakes_are_refused_in_one_line(workdir, tmp_path):
    output = tmp_path / "model.zip"
    broken = tmp_path / "run"
    shutil.copytree(workdir, broken)
    shutil.rmtree(broken / "checkpoints")
    assert_refused(export(broken, output), "checkpoint")
    assert_refused(export(tmp_path / "none", output), "no run in")
    assert_refused(export(workdir, tmp_path / "no" / "model.zip"), "no folder")
    assert not output.exists()
