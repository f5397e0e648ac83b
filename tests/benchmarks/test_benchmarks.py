"""Each benchmark in seconds, and what it refuses."""

import ast
import sys

import jax
import pytest

from benchmarks import data, decode, published, startup, train_step
from benchmarks.harness import comparison
from benchmarks.harness.comparison import OURS
from benchmarks.harness.workloads import WORKS
from conftest import ROOT
from helpers.printed_lines import lines_of

PEERS = ROOT / "benchmarks" / "peers"


@pytest.fixture
def quick(monkeypatch):
    """A script, run in small."""

    def run(script, *flags):
        monkeypatch.setattr(sys, "argv", ["x", "--tiny", *flags])
        assert script.main() == 0

    return run


@pytest.mark.slow
def test_a_tiny_training_step_is_timed_and_peers_are_named(quick, capsys):
    quick(train_step, "--work=rnn_small", "--peers=/nowhere/python")
    ours, peer, summary = lines_of(capsys)
    assert ours["subject"] == OURS
    assert ours["compilations"] == 1
    assert 0 < ours["seconds"]["low"] <= ours["seconds"]["high"] < ours["first_seconds"]
    assert ours["peak_megabytes"] > 100
    assert ours["fraction_of_peak"] > 0
    assert "/nowhere/python" in peer["missing"]
    assert summary["missing"] == ["torch_gru"]


@pytest.mark.slow
def test_a_tiny_search_has_exactly_as_many_tokens_as_asked(quick, capsys):
    quick(decode, "--beams=1", "--peers=")
    ours, _, varied, _, saved = lines_of(capsys)
    assert ours["new_tokens"] == [WORKS["small"].shrunk().length]
    assert varied["lengths"] == "varied"
    assert 0 < saved["avoidable"] < 1
    assert saved["avoided"] < 1


@pytest.mark.slow
def test_a_tiny_published_step_is_timed_and_a_kernel_it_cannot_have_is_told(
    quick, capsys
):
    flags = "--works=xl_base", "--kernels=blockwise,cudnn", "--dtype=float32"
    quick(published, *flags, "--steps=2")
    ours, refused = lines_of(capsys)
    assert ours["nonfinite_steps"] == 0
    assert ours["tokens_per_second"] == pytest.approx(ours["tokens"] / ours["seconds"])
    share = ours["flops"] / ours["seconds"] / ours["peak_matmul_flops_per_second"]
    assert ours["fraction_of_peak"] == pytest.approx(share)
    assert "met" not in ours  # the goal is of another device
    assert refused["refused"] == "cudnn does not support this device"


@pytest.mark.slow
def test_a_published_step_that_does_not_fit_leaves_the_others_theirs(
    monkeypatch, capsys
):
    def step(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 9 GB.")

    monkeypatch.setattr(published.Timed, "step", step)
    options = published.parse(["--works=rnnsearch", "--tiny", "--dtype=float32"])
    found = published.line("rnnsearch", None, options)
    assert found["refused"] == "Out of memory: 9 GB."
    assert found["kernel"] is None


def test_a_published_step_that_is_none_is_refused(capsys):
    for flag in ("--works=huge", "--kernels=flash", "--steps=0"):
        with pytest.raises(SystemExit, match="2"):
            published.parse([flag])
        assert flag.split("=")[0] in capsys.readouterr().err


def test_tiny_batches_are_counted(quick, capsys):
    quick(data, "--peers=")
    lines = [line for line in lines_of(capsys) if line.get("subject")]
    assert [line["kind"] for line in lines] == ["sentences", "text"]
    assert all(line["tokens_per_second"] > 1000 for line in lines)


@pytest.mark.slow
def test_a_tiny_start_is_faster_with_compiled_programs(quick, capsys):
    quick(startup, "--work=rnn_small", "--peers=")
    cold, cached = lines_of(capsys)
    assert cold["compiled_programs"] == "cold"
    assert cached["seconds"]["median"] < cold["seconds"]["median"]


@pytest.mark.parametrize(
    ("script", "flag"),
    [
        (train_step, "--work=large"),
        (train_step, "--rounds=0"),
        (decode, "--beams=four"),
        (data, "--kinds=images"),
        (startup, "--work=none"),
    ],
)
def test_a_wrong_flag_is_refused(script, flag, capsys):
    with pytest.raises(SystemExit) as refused:
        script.parse([flag])
    assert refused.value.code == 2
    assert flag.split("=")[0] in capsys.readouterr().err


def test_only_those_asked_for_are_started():
    found = train_step.parse(["--only=ours,marian", "--peers=python"])
    assert list(train_step.commands(WORKS["small"], found)) == [OURS, "marian"]
    alone = train_step.parse(["--peers="])
    assert list(train_step.commands(WORKS["base"], alone)) == [OURS]


def test_every_peer_is_a_file_that_needs_nothing_of_jax():
    named = {
        module for peers in train_step.PEERS.values() for module, *_ in peers.values()
    }
    assert named <= {path.stem for path in PEERS.glob("*.py")}
    harness = ("protocol", "workloads")
    allowed = {f"benchmarks.harness.{name}" for name in harness}
    shared = [ROOT / "benchmarks" / "harness" / f"{name}.py" for name in harness]
    for path in [*PEERS.glob("*.py"), *shared]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(
                "benchmarks"
            ):
                is_peer = node.module.startswith("benchmarks.peers.")
                assert is_peer or node.module in allowed, path
            names = [a.name for a in getattr(node, "names", ()) if hasattr(a, "name")]
            assert not {"jax", "flax"} & {*names, getattr(node, "module", "")}, path


def test_goals_are_of_peers_there_are():
    assert train_step.GOALS.keys() == WORKS.keys()
    for work, goals in train_step.GOALS.items():
        for name, goal in goals.items():
            assert goal > 1
            assert name in {comparison.FASTEST, *train_step.PEERS[WORKS[work].model]}
