"""Devices as a mesh."""

import jax
import pytest

from errors import UserError
from training.partitioning import make_mesh


def test_meshes_that_do_not_fit_the_devices_are_refused():
    count = len(jax.devices())
    assert make_mesh(-1, 1, 1).shape == {"data": count, "fsdp": 1, "tensor": 1}
    with pytest.raises(UserError, match=f"the {count} devices"):
        make_mesh(1, 1, count + 1)
    with pytest.raises(UserError, match="at most one of them -1"):
        make_mesh(-1, -1, 1)
