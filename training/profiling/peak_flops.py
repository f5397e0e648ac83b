"""Peak FLOP/s of the devices, for model FLOP utilisation (mfu).

For accelerators it is the vendor's figure for dense products at JAX's default
precision: float32 is multiplied as bfloat16 on TPUs and as TF32 on GPUs that have it. A
device that is not in the table, such as a CPU, is measured once per process with a
matrix product.
"""

import functools
import math
import time

import jax
import jax.numpy as jnp

BFLOAT16, FLOAT32 = "bfloat16", "float32"

# Prefix of `device_kind` (the first match counts) and TFLOP/s by dtype.
# TPUs: Google Cloud's pages of each version, per chip in bfloat16; a v2 or v3 chip is
# two devices. GPUs: NVIDIA's data sheets, without sparsity; bfloat16 and TF32, or
# float32 for a GPU that has neither.
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
SECONDS = 0.15  # duration of a measurement
SIZES = {"cpu": 1024}  # matrix size by platform
SIZE = 4096


def peak_flops_per_second(dtype: str) -> float:
    """Returns the peak FLOP/s of all devices together for products of this dtype."""
    device = jax.local_devices()[0]
    known = vendor_peak(device.device_kind, dtype)
    if known is not None:
        return known * jax.device_count()
    # Virtual CPU devices share the cores: one measures the speed of all.
    shared = device.platform == "cpu"
    count = jax.process_count() if shared else jax.device_count()
    return measure_matmul(dtype) * count


def vendor_peak(kind: str, dtype: str) -> float | None:
    """Returns the vendor's peak FLOP/s of a device; None if it is not in the table."""
    for prefix, speeds in TABLE:
        if kind.startswith(prefix):
            speed = speeds.get(dtype)
            return None if speed is None else speed * 1e12
    return None


@functools.cache
def measure_matmul(dtype: str) -> float:
    """Measures the FLOP/s of a matrix product on the first device."""
    size = SIZES.get(jax.default_backend(), SIZE)
    product = jax.jit(jnp.matmul)
    ones = jnp.ones((size, size), dtype)
    product(ones, ones).block_until_ready()  # compiles
    best, end = math.inf, time.perf_counter() + SECONDS
    while (begin := time.perf_counter()) < end:
        product(ones, ones).block_until_ready()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
