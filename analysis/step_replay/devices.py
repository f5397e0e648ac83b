"""The setup of a run on the devices of this machine."""

import dataclasses

import jax

from experiment.setup import TrainingSetup
from training.parallel.partitioner import JitPartitioner, make_partitioner
from training.parallel.pmap import PmapPartitioner
from training.run_dir import RunDirectory
from utils.errors import UserError


class SerialPmapPartitioner(PmapPartitioner):
    """The program of `pmap` for several devices, on the first device with `vmap`."""

    def __init__(self, cfg, *, num_devices: int, num_microbatches: int = 1):
        """Makes the mesh; `cfg.data` is not used."""
        self.num_devices = num_devices
        cfg = cfg.copy_and_resolve_references()
        cfg.data = 1
        devices = jax.local_devices()[:1]
        super().__init__(cfg, num_microbatches=num_microbatches, devices=devices)

    @property
    def _num_row_shards(self) -> int:
        return self.num_devices

    def _map(self, step, in_axes, out_axes):
        return jax.vmap(step, in_axes, out_axes, axis_name=self.axis_name)


def make_setup(directory: RunDirectory, experiment, dataset) -> TrainingSetup:
    """Returns the setup on the devices of the run, or else on one."""
    try:
        setup = TrainingSetup.from_experiment(experiment, dataset)
        mesh, is_pmap = setup.partitioner.mesh, experiment.cfg.parallel.mode == "pmap"
        if not is_pmap or mesh.size == _num_pmap_devices(directory, experiment.cfg):
            return setup
    except UserError as error:
        if not str(error).startswith("parallel."):
            raise
    first = jax.local_devices()[:1]
    cfg = experiment.cfg.copy_and_resolve_references()
    partitioner = one_device_partitioner(directory, cfg)
    cfg.parallel.update(mode="jit", data=1, fsdp=1, tensor=1)
    alone = dataclasses.replace(experiment, cfg=cfg)
    setup = TrainingSetup.from_experiment(alone, dataset, first)
    return dataclasses.replace(setup, experiment=experiment, partitioner=partitioner)


def one_device_partitioner(directory: RunDirectory, cfg) -> JitPartitioner:
    """Returns a partitioner of the first device for a config of any devices."""
    parallel = cfg.parallel.copy_and_resolve_references()
    parallel.update(data=1, fsdp=1, tensor=1)
    options = {"num_microbatches": cfg.grad_accum_steps}
    if parallel.mode == "pmap":
        num_devices = _num_pmap_devices(directory, cfg)
        return SerialPmapPartitioner(parallel, num_devices=num_devices, **options)
    return make_partitioner(parallel, devices=jax.local_devices()[:1], **options)


def _num_pmap_devices(directory: RunDirectory, cfg) -> int:
    """Returns the number of devices that a run under `pmap` was trained on."""
    devices = directory.read_json("about.json").get("devices", [""])
    return cfg.parallel.data if cfg.parallel.data > 0 else len(devices)
