"""How many floating point operations a second the devices could do at most.

Of accelerators it is what their vendors print, for dense products at the speed that
jax gives a type by default: float32 is multiplied as bfloat16 on TPUs, and as TF32
on GPUs that have it. A device that is not in the table, such as a CPU, is measured
once a process by a product of two matrices.
"""

import functools
import math
import time

import jax
import jax.numpy as jnp

BFLOAT16, FLOAT32 = "bfloat16", "float32"

# The beginning of a `device_kind`, the first that fits, and TFLOP/s by type.
# TPUs: Google Cloud's pages of each version, per chip in bfloat16; a chip of v2 and v3
# is two devices, so half of it stands here. GPUs: NVIDIA's data sheets, without
# sparsity; bfloat16 and TF32, or float32 where a GPU has neither.
TABLE = (
    ("TPU v2", {BFLOAT16: 22.5, FLOAT32: 22.5}),  # 45 a chip
    ("TPU v3", {BFLOAT16: 61.5, FLOAT32: 61.5}),  # 123 a chip
    ("TPU v4 lite", {BFLOAT16: 138, FLOAT32: 138}),  # v4i: Jouppi et al. (2021)
    ("TPU v4", {BFLOAT16: 275, FLOAT32: 275}),
    ("TPU v5 lite", {BFLOAT16: 197, FLOAT32: 197}),  # v5e
    ("TPU v5e", {BFLOAT16: 197, FLOAT32: 197}),
    ("TPU v5", {BFLOAT16: 459, FLOAT32: 459}),  # v5p
    ("TPU v6", {BFLOAT16: 918, FLOAT32: 918}),  # v6e
    ("NVIDIA GH200", {BFLOAT16: 989, FLOAT32: 494}),
    ("NVIDIA H200", {BFLOAT16: 989, FLOAT32: 494}),
    ("NVIDIA H100 PCIe", {BFLOAT16: 756, FLOAT32: 378}),
    ("NVIDIA H100 NVL", {BFLOAT16: 835, FLOAT32: 417}),
    ("NVIDIA H100", {BFLOAT16: 989, FLOAT32: 494}),  # SXM
    ("NVIDIA A100", {BFLOAT16: 312, FLOAT32: 156}),
    ("NVIDIA A10G", {BFLOAT16: 70, FLOAT32: 35}),
    ("NVIDIA A10", {BFLOAT16: 125, FLOAT32: 62.5}),
    ("NVIDIA L40S", {BFLOAT16: 362, FLOAT32: 183}),
    ("NVIDIA L40", {BFLOAT16: 181, FLOAT32: 90.5}),
    ("NVIDIA L4", {BFLOAT16: 121, FLOAT32: 60}),
    ("Tesla V100-PCIE", {BFLOAT16: 14, FLOAT32: 14}),  # tensor cores: float16 alone
    ("Tesla V100", {BFLOAT16: 15.7, FLOAT32: 15.7}),  # SXM2
    ("Tesla T4", {BFLOAT16: 8.1, FLOAT32: 8.1}),
)
SECONDS = 0.15  # that a measurement takes
SIZES = {"cpu": 1024}  # of the matrices, which a CPU need not be asked twice
SIZE = 4096


def ceiling(dtype: str) -> float:
    """Of all devices together, in FLOP/s, for products of numbers of this type."""
    device = jax.local_devices()[0]
    known = listed(device.device_kind, dtype)
    if known is not None:
        return known * jax.device_count()
    # Devices that stand for a CPU's cores share them, so that one has the speed of all.
    shared = device.platform == "cpu"
    parts = jax.process_count() if shared else jax.device_count()
    return measured(dtype) * parts


def listed(kind: str, dtype: str) -> float | None:
    """What the vendor prints of a device, in FLOP/s; None: it is not in the table."""
    for beginning, speeds in TABLE:
        if kind.startswith(beginning):
            speed = speeds.get(dtype)
            return None if speed is None else speed * 1e12
    return None


@functools.cache
def measured(dtype: str) -> float:
    """What the first device of this process reaches in a product, in FLOP/s."""
    size = SIZES.get(jax.default_backend(), SIZE)
    product = jax.jit(jnp.matmul)
    one = jnp.ones((size, size), dtype)
    product(one, one).block_until_ready()  # compiles
    best, end = math.inf, time.perf_counter() + SECONDS
    while (begin := time.perf_counter()) < end:
        product(one, one).block_until_ready()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
