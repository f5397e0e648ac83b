"""Allocation of devices to the workers of one machine."""

import itertools

import pytest

from sweeps.devices import Machine, allocate, describe, this_machine
from utils.errors import UserError

CORES = tuple(range(8))


def machine(kind, devices=0, cores=CORES):
    return Machine(kind, tuple(str(number) for number in range(devices)), cores)


def values(found, name):
    return [allocation.environment[name] for allocation in found]


def test_one_worker_has_all_devices():
    for kind in ("tpu", "gpu", "cpu"):
        (allocation,) = allocate(machine(kind, 4), 1)
        assert allocation.environment == {}
        assert allocation.cores == ()


@pytest.mark.parametrize(
    ("chips", "workers", "each", "bounds"),
    [(4, 2, 2, "1,2,1"), (4, 4, 1, "1,1,1"), (8, 2, 4, "2,2,1"), (8, 3, 2, "1,2,1")],
)
def test_workers_of_a_tpu_host_do_not_share_chips(chips, workers, each, bounds):
    found = allocate(machine("tpu", chips), workers)
    visible = [part.split(",") for part in values(found, "TPU_VISIBLE_CHIPS")]
    assert [len(part) for part in visible] == [each] * workers
    assert len(set(itertools.chain(*visible))) == each * workers
    assert set(values(found, "TPU_CHIPS_PER_PROCESS_BOUNDS")) == {bounds}
    assert set(values(found, "TPU_PROCESS_BOUNDS")) == {"1,1,1"}
    ports = values(found, "TPU_PROCESS_PORT")
    assert len(set(ports)) == workers
    addresses = [f"localhost:{port}" for port in ports]
    assert values(found, "TPU_PROCESS_ADDRESSES") == addresses
    sides = [int(side) for side in bounds.split(",")]
    assert sides[0] * sides[1] * sides[2] == each


def test_a_tpu_chip_is_never_shared():
    with pytest.raises(UserError, match="there are 4 TPU chips"):
        allocate(machine("tpu", 4), 5)


def test_workers_have_equally_many_gpus_of_their_own():
    found = allocate(Machine("gpu", ("2", "3", "5", "7", "8"), CORES), 2)
    assert values(found, "CUDA_VISIBLE_DEVICES") == ["2,3", "5,7"]
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in found[0].environment


def test_workers_that_share_a_gpu_share_its_memory():
    found = allocate(machine("gpu", 2), 5)
    gpus = values(found, "CUDA_VISIBLE_DEVICES")
    assert gpus == ["0", "1", "0", "1", "0"]
    for gpu in "01":
        taken = [
            float(allocation.environment["XLA_PYTHON_CLIENT_MEM_FRACTION"])
            for allocation, name in zip(found, gpus, strict=True)
            if name == gpu
        ]
        assert sum(taken) <= 0.91


@pytest.mark.parametrize(("workers", "each"), [(2, 4), (3, 2), (8, 1)])
def test_workers_have_equally_many_cores_of_their_own(workers, each):
    found = allocate(machine("cpu"), workers)
    taken = list(itertools.chain(*(allocation.cores for allocation in found)))
    assert len(taken) == len(set(taken)) == workers * each
    assert values(found, "OMP_NUM_THREADS") == [str(each)] * workers
    assert values(found, "PJRT_NPROC") == [str(each)] * workers


def test_more_workers_than_cores_have_one_each():
    found = allocate(machine("cpu", cores=(4, 6)), 3)
    assert [allocation.cores for allocation in found] == [(4,), (6,), (4,)]


def test_zero_workers_are_refused():
    with pytest.raises(UserError, match="--workers=0"):
        allocate(machine("cpu"), 0)


@pytest.mark.parametrize(
    ("files", "environment", "kind", "devices"),
    [
        ([], {}, "cpu", ()),
        (["accel0", "accel1"], {}, "tpu", ("0", "1")),
        (["vfio/0", "vfio/1", "vfio/vfio"], {}, "tpu", ("0", "1")),
        (["accel0", "accel1"], {"TPU_VISIBLE_CHIPS": "1"}, "tpu", ("1",)),
        (["accel0"], {"JAX_PLATFORMS": "cpu"}, "cpu", ()),
        (["nvidia0", "nvidia1", "nvidiactl"], {}, "gpu", ("0", "1")),
        (["nvidia0", "vfio/0"], {}, "gpu", ("0",)),
        (["nvidia0", "nvidia1"], {"CUDA_VISIBLE_DEVICES": "1"}, "gpu", ("1",)),
        (["nvidia0"], {"CUDA_VISIBLE_DEVICES": ""}, "cpu", ()),
        (["nvidia0"], {"CUDA_VISIBLE_DEVICES": "MIG-a,b"}, "gpu", ("MIG-a", "b")),
        (["nvidia0"], {"JAX_PLATFORMS": "cuda,cpu"}, "gpu", ("0",)),
    ],
)  # fmt: skip
def test_a_machine_is_detected_by_its_files_and_variables(
    tmp_path, files, environment, kind, devices
):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = this_machine(environment, tmp_path)
    assert (found.kind, found.devices) == (kind, devices)
    assert found.cores


def test_a_host_of_a_slice_uses_its_own_chips_alone(tmp_path):
    for number in range(4):
        (tmp_path / f"accel{number}").touch()
    environment = {"TPU_WORKER_HOSTNAMES": "w-0,w-1"}
    found = this_machine(environment, tmp_path)
    assert found.is_in_slice
    (allocation,) = allocate(found, 1)
    assert allocation.environment["TPU_PROCESS_BOUNDS"] == "1,1,1"
    assert allocation.environment["TPU_VISIBLE_CHIPS"] == "0,1,2,3"
    assert (allocation.kind, allocation.count) == ("tpu", 4)
    assert not this_machine({}, tmp_path).is_in_slice


def test_shared_devices_count_as_fractions():
    counts = [a.count for a in allocate(machine("gpu", 2), 4)]
    assert counts == [0.5] * 4
    assert [a.count for a in allocate(machine("gpu", 4), 2)] == [2, 2]
    assert [a.count for a in allocate(machine("cpu"), 3)] == [1] * 3
    line = "2 at once on this machine: 4 trials as one program on 2 tpu each"
    assert describe(allocate(machine("tpu", 4), 2), 4) == line
