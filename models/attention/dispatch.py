"""Implementations of dot-product attention, by `cfg.model.attention_impl`.

    xla        logits of all queries at once; the fallback of the others
    blockwise  chunks of queries, recomputed in the backward pass: less memory
    pallas     TPU v5 and later: fused, with relative positions and dropout
    cudnn      NVIDIA GPUs: fused, without relative positions and dropout

A run may move between devices: on a device without the implementation, it takes
`xla`. So do calls that need the attention weights or read a ring buffer of keys
(evaluation of a Transformer-XL). Implementations differ in how they round sums.
"""

import importlib
from collections.abc import Callable

import jax

# "module:function", imported on first use, with the parameters of `xla_attention`.
IMPLEMENTATIONS = {
    "xla": "models.attention.dot_product:xla_attention",
    "blockwise": "models.attention.blockwise:blockwise_attention",
    "pallas": "models.attention.pallas_tpu.attention:flash_attention_tpu",
    "cudnn": "models.attention.cudnn:cudnn_attention",
}
TPUS_BEFORE_V5 = ("TPU v2", "TPU v3", "TPU v4")
AMD_PREFIXES = ("AMD", "gfx")  # of JAX's platform "gpu" too
SUPPORTED_DEVICES = {  # see `device_kind`; "xla" runs on all
    "blockwise": ("cpu", "gpu", "amd gpu", "tpu", "old tpu"),
    "pallas": ("tpu",),
    "cudnn": ("gpu",),
}


def device_kind() -> str:
    """Returns the kind of device that the current program is traced for.

    One of "cpu", "gpu" (NVIDIA), "amd gpu", "tpu" and "old tpu", or JAX's platform.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    if device.device_kind.startswith(TPUS_BEFORE_V5):
        return "old tpu"
    if device.device_kind.startswith(AMD_PREFIXES):
        return "amd gpu"
    return {"cuda": "gpu"}.get(device.platform, device.platform)


def is_supported(name: str) -> bool:
    """Returns whether the device of the traced program has the implementation."""
    return name == "xla" or device_kind() in SUPPORTED_DEVICES[name]


def select_implementation(name: str) -> Callable:
    """Returns an implementation, or "xla" on a device that does not have it."""
    path = IMPLEMENTATIONS[name if is_supported(name) else "xla"]
    module, function = path.split(":")
    return getattr(importlib.import_module(module), function)
