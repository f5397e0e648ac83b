"""What devices could do at most, and the share of it that a log tells."""

import itertools
import json
import math
import time

import jax
import jax.numpy as jnp
import pytest

from helpers.toy_run import settings
from training import loop
from training.loop import RunRecord
from training.metric_writers import open_writers
from training.metrics import TrainProgress
from training.profiling import peak_flops
from training.profiling.peak_flops import (
    measure_matmul,
    peak_flops_per_second,
    vendor_peak,
)


@pytest.mark.parametrize(
    ("kind", "bfloat16", "float32"),
    [
        ("TPU v5 lite", 197e12, 197e12),
        ("TPU v5p", 459e12, 459e12),
        ("TPU v6 lite", 918e12, 918e12),
        ("TPU v4", 275e12, 275e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 156e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 494e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12),
        ("NVIDIA L40S", 362e12, 183e12),
        ("Tesla V100-SXM2-16GB", 15.7e12, 15.7e12),
    ],
)
def test_known_devices_have_what_their_vendors_print(kind, bfloat16, float32):
    assert vendor_peak(kind, "bfloat16") == bfloat16
    assert vendor_peak(kind, "float32") == float32
    assert vendor_peak(kind, "float64") is None


def test_no_beginning_hides_a_longer_one_after_it():
    kinds = [kind for kind, _ in peak_flops.TABLE]
    for first, second in itertools.combinations(kinds, 2):
        assert not second.startswith(first)


def test_an_unknown_device_is_measured_once_and_not_for_long(monkeypatch):
    measure_matmul.cache_clear()
    begin = time.perf_counter()
    found = peak_flops_per_second("float32")
    assert time.perf_counter() - begin < 5
    # No run of a product is much faster than the best of many.
    size = peak_flops.SIZES["cpu"]
    one = jnp.ones((size, size))
    begin = time.perf_counter()
    (one @ one).block_until_ready()
    once = 2 * size**3 / (time.perf_counter() - begin)
    assert 1e8 < once < 4 * found
    monkeypatch.setattr(time, "perf_counter", None)  # a second would fail
    assert peak_flops_per_second("float32") == found


class Known:
    """Stands for an accelerator."""

    device_kind, platform = "TPU v6 lite", "tpu"


def test_all_devices_count(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [Known()])
    monkeypatch.setattr(jax, "device_count", lambda: 64)
    assert peak_flops_per_second("bfloat16") == 64 * 918e12


def lines(tmp_path, peak, monkeypatch, flops=(1000, 3000, 5000)):
    clock = iter(range(100))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    progress = TrainProgress()
    writers = open_writers(tmp_path, {}, step=0, steps=4)[:1]
    record = RunRecord(settings(log_every=2), progress, writers, None, peak)
    pairs = {
        "loss": (jnp.float32(1), jnp.float32(2)),
        "nonfinite_steps": (jnp.zeros(()), jnp.ones(())),
    }
    for step, count in enumerate(flops, start=1):
        record.add(step, pairs, 0.0, count, log=step == len(flops))
    text = (tmp_path / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_tells_the_operations_of_its_steps_a_second(tmp_path, monkeypatch):
    first, second = lines(tmp_path, 16_000.0, monkeypatch)
    seconds = first["seconds"], second["seconds"] - first["seconds"]
    assert first["flops_per_second"] * seconds[0] == pytest.approx(1000 + 3000)
    assert second["flops_per_second"] * seconds[1] == pytest.approx(5000)
    for line in (first, second):
        share = line["flops_per_second"] / 16_000
        assert math.isclose(line["mfu"], share)


def test_where_no_ceiling_is_known_nothing_is_told(tmp_path, monkeypatch):
    for line in lines(tmp_path, None, monkeypatch):
        assert not line.keys() & {"flops_per_second", "mfu"}
