"""Selection of the partitioner: `jit` over a mesh, or `pmap`.

Both run the same step and store the same checkpoints: whole arrays, carries without
padding rows.
"""

from ml_collections import ConfigDict

from training.parallel.mesh import Devices
from training.parallel.partitioner import JitPartitioner
from training.parallel.pmap import PmapPartitioner
from utils.errors import UserError

PARTITIONERS = {"jit": JitPartitioner, "pmap": PmapPartitioner}


def make_partitioner(
    cfg: ConfigDict, *, num_microbatches: int = 1, devices: Devices = None
) -> JitPartitioner:
    """Returns the partitioner of `cfg.mode`.

    Args:
      cfg: the section `cfg.parallel`.
      num_microbatches: microbatches per step; the batch size is padded to a multiple.
      devices: None: all devices.

    Raises:
      UserError: unknown mode, or a mesh that does not fit the devices.
    """
    if cfg.mode not in PARTITIONERS:
        raise UserError(
            f"Unknown parallel.mode {cfg.mode!r}; "
            f"choose one of {', '.join(PARTITIONERS)}"
        )
    make = PARTITIONERS[cfg.mode]
    return make(cfg, num_microbatches=num_microbatches, devices=devices)
