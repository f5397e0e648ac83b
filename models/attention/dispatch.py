"""Ways to compute the same attention: `cfg.model.attention_impl`.

    xla        scores of all queries at once; where no accelerator's kernel is
    blockwise  so many queries at a time, made again in the backward pass: less memory
    pallas     TPUs from v5 on: no scores in memory, with distances and dropout
    cudnn      NVIDIA GPUs: the same by cuDNN, which knows neither of the two

A run may go from device to device: what is of another kind takes `xla`, and so does
what asks for weights or reads a ring of keys (a Transformer-XL's evaluation). They
differ in how sums are rounded.
"""

from collections.abc import Callable

from models.attention.blockwise import blockwise_attention
from models.attention.cudnn import cudnn_attention
from models.attention.dot_product import dot_product_attention
from models.attention.pallas_tpu.attention import flash_attention_tpu
from models.common.devices import device_kind

IMPLEMENTATIONS: dict[
    str, Callable
] = {  # with the arguments and the result of `dot_product_attention`
    "xla": dot_product_attention,
    "blockwise": blockwise_attention,
    "pallas": flash_attention_tpu,
    "cudnn": cudnn_attention,
}
SUPPORTED_DEVICES = {
    "blockwise": ("cpu", "gpu", "amd gpu", "tpu", "old tpu"),
    "pallas": ("tpu",),
    "cudnn": ("gpu",),
}


def is_supported(name: str) -> bool:
    """Whether a program for this device has the kernel, or "xla" in its place."""
    return name == "xla" or device_kind() in SUPPORTED_DEVICES[name]


def select_implementation(name: str) -> Callable:
    """One of the KERNELS, or "xla" where a program is not for such a device."""
    return IMPLEMENTATIONS[name if is_supported(name) else "xla"]
