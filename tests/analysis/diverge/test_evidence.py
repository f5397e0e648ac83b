"""Comparison of configs, logs and arrays of two runs."""

import json
import math

import jax
import ml_dtypes
import numpy as np
import pytest

from analysis.diverge.evidence import (
    ArrayDifference,
    compare_array,
    compare_arrays,
    compare_configs,
    compare_environments,
    compare_fingerprints,
    compare_logs,
    group_distance,
)
from analysis.diverge.records import intact_checkpoints
from configs import base
from training.checksums import write_checksums
from training.observe.fingerprint import (
    FingerprintFile,
    digest_tree,
    named_arrays,
    read_fingerprints,
)
from utils.errors import UserError


def config(**changes):
    cfg = base.get_config()
    cfg.update_from_flattened_dict(changes)
    return cfg.to_dict()


def row(step, loss, split="train", **values):
    return {"step": step, "split": split, "loss": loss, "seconds": 1.5 * step, **values}


def test_keys_of_records_and_folders_are_no_difference_of_training():
    changes = {"every.log": 7, "decode.beam_size": 2, "data.dir": "elsewhere"}
    found, others = compare_configs(config(), config(**changes))
    assert found == []
    assert {one.name for one in others} == {"every.log", "decode.beam_size"}
    found, _ = compare_configs(config(), config(label_smoothing=0.1))
    assert list(map(str, found)) == ["label_smoothing is 0.0 in A and 0.1 in B"]


def test_environments_differ_by_version_device_and_commit():
    about = {"versions": {"jax": "1", "numpy": "2"}, "commit": "a", "run_id": "x"}
    other = {"versions": {"jax": "1", "numpy": "3"}, "commit": "b", "run_id": "y"}
    names = [one.name for one in compare_environments(about, other)]
    assert names == ["commit", "versions.numpy"]


def test_the_first_logged_value_that_differs_is_found_without_timings():
    first = [row(step, 3 - step / 10) for step in range(1, 6)]
    second = [{**one, "seconds": 7} for one in first]
    assert compare_logs(first, second).first is None
    second[3] = row(4, 9.0)
    found = compare_logs(first, second).first
    assert (found.step, found.equal) == (4, 3)
    assert list(map(str, found.values)) == ["loss is 2.6 in A and 9.0 in B"]


def test_lines_that_sum_up_other_steps_are_not_compared():
    first = [row(2, 3.0), row(4, 2.0), row(4, 2.5, "validation")]
    second = [row(4, 2.6), row(4, 2.5, "validation")]
    found = compare_logs(first, second)
    assert found.steps == (4,)
    assert found.first is None


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32])
def test_a_flipped_bit_of_an_array_is_found(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    assert compare_array("x", array, array.copy()) is None
    changed = array.copy()
    changed.view(f"uint{8 * changed.itemsize}")[1, 2] ^= 8
    found = compare_array("x", array, changed)
    assert (found.count, found.bit, found.is_single) == (1, 3, True)
    if found.largest:  # bfloat16 rounds such a change away from a large number
        assert found.place == (1, 2)


def test_values_that_are_not_finite_differ_infinitely():
    found = compare_array("x", np.ones(3), np.array([1, np.nan, 1]))
    assert found.relative == found.largest == math.inf
    assert found.place == (1,)
    assert compare_array("x", np.full(2, np.nan), np.full(2, np.nan)) is None
    assert compare_array("x", np.zeros(2), -np.zeros(2)).relative == 0


def test_arrays_are_listed_in_order_of_computation():
    names = ("opt_state/mu", "params/b", "batch/tokens", "carry/x", "params/a")
    arrays = {name: np.ones(2) for name in names}
    found = compare_arrays(arrays, {name: np.zeros(2) for name in names})
    order = ["batch/tokens", "carry/x", "params/b", "params/a", "opt_state/mu"]
    assert [one.name for one in found] == order


def test_the_distance_of_a_group_is_that_of_its_arrays_together():
    draw = np.random.default_rng(0)
    first = {name: draw.normal(size=5) for name in ("params/a", "params/b", "carry")}
    second = {name: x + 0.1 * draw.normal(size=5) for name, x in first.items()}
    together = [np.concatenate([x["params/a"], x["params/b"]]) for x in (first, second)]
    expected = np.linalg.norm(together[0] - together[1]) / np.linalg.norm(together[0])
    found = group_distance(compare_arrays(first, second), "params", first)
    assert found == pytest.approx(expected, rel=0.2)  # each relative to the larger norm
    arrays = [ArrayDifference("params/a", 0.5, 3.0)]
    assert group_distance(arrays, "params", {"params/a": np.array([3.0])}) == 0.5


def write_fingerprints(path, trees):
    file = FingerprintFile(path, 0, {"config": {}, "about": {}})
    for step, tree in trees.items():
        shapes = {name: x.shape for name, x in named_arrays(tree).items()}
        file.write(step, shapes, jax.jit(digest_tree)(tree))
    return read_fingerprints(path)


def test_fingerprints_name_the_flipped_bit(tmp_path):
    def tree(step):
        draw = np.random.default_rng(step)
        values = draw.normal(size=(3, 4)).astype(np.float32)
        return {"batch": {"x": values[0]}, "params": {"w": values, "b": values[:, 1]}}

    trees = {step: tree(step) for step in (2, 4, 6, 8)}
    first = write_fingerprints(tmp_path / "a.jsonl", trees)
    changed = {step: tree(step) for step in (4, 6, 8)}
    changed[6]["params"]["w"].view(np.uint32)[2, 2] ^= 1 << 30
    second = write_fingerprints(tmp_path / "b.jsonl", changed)
    found = compare_fingerprints(first, second)
    assert found.steps == (4, 6, 8)
    assert (found.first.step, found.first.equal) == (6, 4)
    (array,) = found.first.arrays
    assert (array.name, array.place, array.bit) == ("params/w", (2, 2), 30)
    assert found.growth[1] == (8, 0.0)


def test_arrays_of_one_run_alone_or_of_another_shape_are_not_compared():
    first = {"opt_state/mu/w": np.ones(3), "params/w": np.ones(3), "carry": np.ones(2)}
    second = {"opt_state/v": np.ones(1), "params/w": np.zeros(3), "carry": np.ones(4)}
    assert [one.name for one in compare_arrays(first, second)] == ["params/w"]


def test_damaged_checkpoints_are_not_compared(tmp_path, capsys):
    for step in ("10", "20"):
        folder = tmp_path / "checkpoints" / step
        (folder / "content").mkdir(parents=True)
        (folder / "content" / "arrays").write_bytes(b"0123")
        write_checksums(folder)
    (tmp_path / "checkpoints" / "20" / "content" / "arrays").write_bytes(b"0")
    assert intact_checkpoints(tmp_path) == [10]
    assert "checkpoint 20" in capsys.readouterr().err


def test_damaged_fingerprints_are_left_out(tmp_path):
    tree = {"batch": {"x": np.ones(3, np.float32)}, "params": {"w": np.ones(2)}}
    path = tmp_path / "a.jsonl"
    write_fingerprints(path, {2: tree, 4: tree})
    header, first, second = path.read_text().splitlines()
    short = json.dumps(json.loads(first) | {"checksums": []})
    path.write_text("\n".join([header, short, second, ""]))
    assert list(read_fingerprints(path).rows) == [4]
    path.write_text("\n".join([header.replace('"about"', '"other"'), second, ""]))
    with pytest.raises(UserError, match="has no fingerprints"):
        read_fingerprints(path)
