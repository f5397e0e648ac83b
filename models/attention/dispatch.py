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

from models.attention.blockwise import attended_in_blocks
from models.attention.cudnn import attended_by_cudnn
from models.attention.dot_product import attended
from models.attention.pallas_tpu.attention import attended_on_tpu
from models.common.devices import kind_of_device

KERNELS: dict[str, Callable] = {  # with the arguments and the result of `attended`
    "xla": attended,
    "blockwise": attended_in_blocks,
    "pallas": attended_on_tpu,
    "cudnn": attended_by_cudnn,
}
AT_HOME = {
    "blockwise": ("cpu", "gpu", "amd gpu", "tpu", "old tpu"),
    "pallas": ("tpu",),
    "cudnn": ("gpu",),
}


def is_at_home(name: str) -> bool:
    """Whether a program for this device has the kernel, or "xla" in its place."""
    return name == "xla" or kind_of_device() in AT_HOME[name]


def kernel_of(name: str) -> Callable:
    """One of the KERNELS, or "xla" where a program is not for such a device."""
    return KERNELS[name if is_at_home(name) else "xla"]
