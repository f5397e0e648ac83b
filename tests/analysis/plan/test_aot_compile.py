"""Tests of steps compiled ahead of time for devices that do not exist here."""

import dataclasses
import importlib.util
import re
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from analysis.plan import aot_compile
from analysis.plan.aot_compile import CompiledStep
from analysis.plan.memory import device_memory, partitioner_for
from analysis.plan.report import compiled_table, report
from analysis.plan.step import StepSpec
from helpers.entry_points import assert_refused, run
from models.attention.dispatch import select_implementation
from models.attention.dot_product import AttentionInputs
from models.common.dropout import DropoutMask
from tests.analysis.plan.test_plan import config
from utils.errors import UserError

ROOT = Path(__file__).parents[3]
COMPILERS = ROOT / ".venv-targets" / "bin" / "python"


@pytest.fixture(scope="module")
def compiled():
    step = StepSpec.from_config(config())
    partitioner = partitioner_for(step.cfg, aot_compile.topology_devices("cpu"))
    return step, partitioner, CompiledStep.compile(step, partitioner)


def test_the_compiled_state_is_that_of_the_plan_and_the_batch(compiled):
    step, partitioner, found = compiled
    _, _, batch = step.input_shapes(partitioner.pad_batch_size(step.batch_size))
    own = sum(leaf.size * leaf.dtype.itemsize for leaf in batch.values())
    known = device_memory(step, partitioner).total + own
    assert known <= found.state_bytes <= known + 64  # and the number of the step
    assert found.total_bytes == found.state_bytes + found.working_bytes
    assert found.working_bytes > 0


def test_a_step_that_is_compiled_for_a_target_is_in_the_report():
    text = report(config(), target="cpu")
    assert "compiled for 1 x cpu, in GB on each" in text
    assert re.search(r"total +0\.\d{4}  compiled in \d+\.\d s", text)


def test_the_table_says_whether_the_step_fits(compiled, monkeypatch):
    step, partitioner, found = compiled
    monkeypatch.setattr(CompiledStep, "compile", lambda *_: found)
    assert "fits into 5 GB" in compiled_table(step, partitioner, 5)
    text = compiled_table(step, partitioner, 1e-6)
    assert re.search(r"does not fit into 1e-06 GB: 0\.\d+ GB too much", text)


def test_a_step_that_exceeds_the_memory_is_reported_in_one_line(compiled, monkeypatch):
    step, partitioner, _ = compiled

    class Refused:
        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: the memory of 191.52G exceeds 15.75G.\nmore"
            )

    monkeypatch.setattr(aot_compile, "lower", lambda *_: Refused())
    text = compiled_table(step, partitioner, None)
    assert text.endswith("\ndoes not fit: the memory of 191.52G exceeds 15.75G.")


def test_matmuls_without_a_tiling_are_left_to_the_library():
    class Lowered:
        def compile(self, options=None):
            if options is None:
                raise jax.errors.JaxRuntimeError(
                    "INTERNAL: Couldn't find output tile sizes that satisfy hlo: %dot"
                )
            return options

    found = aot_compile.compile_lowered(Lowered())
    assert found == {"xla_gpu_enable_triton_gemm": False}


def test_exhausted_memory_of_a_kernel_is_reported_as_such():
    error = "RESOURCE_EXHAUSTED: E1001: CompileTimeScopedVmemOom:\nRan out of memory "
    text = aot_compile.out_of_memory_reason(
        error + "in memory space vmem while ...\nmore"
    )
    assert text.startswith("a kernel's on-chip memory, not the device's: Ran out of")


@pytest.mark.parametrize("target", ["tpu", "h100:0", "h100:x", "v5e", "v5e:4", "cpu:2"])
def test_an_unknown_target_is_refused(target):
    with pytest.raises(UserError, match="v5e:4x4, a100, h100, h200"):
        aot_compile.topology_devices(target)


@pytest.mark.parametrize(
    ("target", "needed"), [("v5e:2x2", "pip install libtpu"), ("h100", "cuda.txt")]
)
def test_a_missing_compiler_is_named(monkeypatch, target, needed):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=needed):
        aot_compile.topology_devices(target)


def test_more_devices_than_a_target_has_are_refused():
    with pytest.raises(UserError, match="--devices=2: --target=cpu has 1"):
        report(config(), devices=2, target="cpu")


def test_pmap_is_refused():
    with pytest.raises(UserError, match="pmap"):
        report(config(mode="pmap"), target="cpu")


def test_the_command_refuses_a_target_in_one_line():
    done = run("train.py", "--config=configs/cldr.py:rnn", "--plan", "--target=tpu")
    assert_refused(done, "--target=tpu", "v5e:4x4")


def test_only_the_memory_of_gpus_is_known():
    assert aot_compile.target_memory_gb("h100:8") == pytest.approx(85.5, abs=0.1)
    assert (
        aot_compile.target_memory_gb("v5e:2x2")
        is aot_compile.target_memory_gb("cpu")
        is None
    )


def for_a_tpu():
    """Context in which a program is traced for one TPU."""
    device = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


def test_a_tpus_kernel_is_lowered_without_an_array_of_all_scores():
    rows, heads, queries, keys, width = 2, 2, 256, 512, 64

    def number(kernel, content, keys, distances):
        meeting = AttentionInputs(content, keys, keys, content, distances)
        mask = jnp.ones((1, 1, queries, keys.shape[2]), bool)
        dropout = DropoutMask.from_rate(jnp.zeros(2, jnp.uint32), 0.1)
        found = kernel(meeting, mask, dropout)
        return found.astype(jnp.float32).sum()

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16)

    inputs = (
        array(rows, heads, queries, width),
        array(rows, heads, keys, width),
        array(keys, heads, width),
    )
    scores = f"{rows}x{heads}x{queries}x{keys}x"
    for name, calls in (("xla", 0), ("pallas", 2)):
        with for_a_tpu():
            kernel = select_implementation(name)
        gradient = jax.jit(jax.grad(lambda *x: number(kernel, *x), (0, 1, 2)))  # noqa: B023
        with for_a_tpu():
            text = gradient.trace(*inputs).lower(lowering_platforms=("tpu",)).as_text()
        assert text.count("@tpu_custom_call") == calls
        assert (scores in text) == (name == "xla")


def test_a_tpus_kernel_is_lowered_for_a_population():
    def number(text, keys, rate):
        mask = jnp.ones((1, 1, 128, 128), bool)
        return select_implementation("pallas")(
            AttentionInputs(text, text, text), mask, DropoutMask.from_rate(keys, rate)
        ).sum()

    members = jax.jit(jax.vmap(jax.grad(number)))
    inputs = (
        jax.ShapeDtypeStruct((3, 2, 2, 128, 64), jnp.float32),
        jax.ShapeDtypeStruct((3, 2), jnp.uint32),
        jax.ShapeDtypeStruct((3,), jnp.float32),
    )
    with for_a_tpu():
        text = members.trace(*inputs).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == 2


SLICES = {  # with how many devices, and how JAX names them
    "v3:2x2": "8 x TPU v3",
    "v4:2x2x1": "4 x TPU v4",
    "v5e:1x1": "1 x TPU v5 lite",
    "v5e:2x2": "4 x TPU v5 lite",
    "v6e:2x4": "8 x TPU v6 lite",
}


@pytest.mark.slow
@pytest.mark.skipif(
    not COMPILERS.exists(), reason="needs `make setup-targets`, compilers of TPUs"
)
@pytest.mark.parametrize(
    ("model", "kernel", "target"),
    [
        ("rnn", None, "v5e:1x1"),
        ("transformer", "xla", "v5e:2x2"),
        ("transformer", "blockwise", "v3:2x2"),
        ("transformer", "pallas", "v6e:2x4"),
        ("transformer_xl", "xla", "v6e:2x4"),
        ("transformer_xl", "pallas", "v5e:2x2"),
        ("transformer_xl", "pallas", "v4:2x2x1"),
    ],
)
def test_every_architecture_compiles_for_slices_of_tpus(model, kernel, target):
    flags = [f"--config.parallel.fsdp={1 if target == 'v5e:1x1' else 2}"]
    if kernel:
        flags.append(f"--config.model.attention_impl={kernel}")
    name = f"--config=configs/cldr.py:{model}"
    done = subprocess.run(
        [COMPILERS, "train.py", "--plan", name, f"--target={target}", *flags],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"compiled for {SLICES[target]}, in GB" in done.stdout
    assert "does not fit" not in done.stdout


def test_a_gpu_is_described_in_the_format_of_xla():
    text = aot_compile.gpu_target_config(aot_compile.GPUS["h100"], 13)
    assert text.count("{") == text.count("}") == 4
    fields = dataclasses.asdict(aot_compile.GPUS["h100"])
    assert f"core_count: {fields['multiprocessors']} " in text
    assert f"device_memory_size: {81559 << 20}\n" in text
