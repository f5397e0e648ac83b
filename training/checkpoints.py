"""Checkpoints of a run, by orbax: the newest two and the best."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from errors import UserError

NOT_SCORED = -1e30


def _goodness(metrics: dict[str, float]) -> float:
    return metrics["goodness"]


@contextlib.contextmanager
def _full_disk_explained() -> Iterator[None]:
    """Turns what the storage layer says of a write that failed into a UserError."""
    try:
        yield
    except ValueError as error:
        if "os_error_code=" not in str(error):
            raise
        raise UserError(
            "a checkpoint could not be written (is the disk full, or a file size "
            f"limited?): {str(error).splitlines()[0][:300]}. The ones before are "
            "whole: make room and run the same command again"
        ) from error


class Checkpoints:
    """The folder `checkpoints/` of a run; steps are its subfolders.

    Saving happens in the background; a step that was not written whole is not
    listed.
    """

    def __init__(self, folder: Path):
        self.manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                best_fn=_goodness,
                best_mode="max",
                preservation_policy=preservation.AnyPreservationPolicy(
                    [
                        preservation.LatestN(2),
                        preservation.BestN(get_metric_fn=_goodness, n=1),
                    ]
                ),
            ),
        )

    def save(self, step: int, content: PyTree, goodness: float | None) -> None:
        """Args: goodness: larger is better; None where nothing was evaluated."""
        if step in self.manager.all_steps():
            return
        scored = goodness is not None and math.isfinite(goodness)
        with _full_disk_explained():
            self.manager.save(
                step,
                args=ocp.args.StandardSave(content),
                metrics={"goodness": goodness if scored else NOT_SCORED},
                force=True,
            )

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending."""
        return sorted(self.manager.all_steps())

    def find(self, which: str) -> int:
        """The step meant by "best", "last" or a number.

        Raises UserError where there is none.
        """
        steps = self.steps()
        if not steps:
            raise UserError("this run has no checkpoint yet: train it first")
        if which == "last":
            return steps[-1]
        if which == "best":
            return self.manager.best_step()
        if not which.isdigit() or int(which) not in steps:
            there = ", ".join(map(str, steps))
            raise UserError(
                f"checkpoint={which!r}: there are 'best', 'last' and steps {there}"
            )
        return int(which)

    def restore(self, step: int, like: PyTree) -> PyTree:
        """The content of a step, with shapes, types and shardings as in `like`."""

        def describe(leaf):
            return jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)
            )

        abstract = jax.tree.map(describe, like)
        return self.manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def restore_params(self, step: int) -> PyTree:
        """The parameters alone, on the first device.

        Where an optimiser has averaged them, the average.
        """
        folder = self.manager.directory / str(step) / "default"
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def describe(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)

        def read(reader, wanted):
            wanted = {"state": jax.tree.map(describe, wanted)}
            restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
            content = reader.restore(
                folder,
                args=ocp.args.PyTreeRestore(
                    item=wanted, restore_args=restore_args, partial_restore=True
                ),
            )
            return content["state"]

        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            stored = reader.metadata(folder).item_metadata["state"]
            optimizer = stored.get("opt_state")
            if isinstance(optimizer, dict) and "average" in optimizer:
                parts = {name: optimizer["average"][name] for name in ("mean", "count")}
                found = read(reader, {"opt_state": {"average": parts}})
                average = found["opt_state"]["average"]
                if int(average["count"]):
                    return average["mean"]
            return read(reader, {"params": stored["params"]})["params"]

    def close(self) -> None:
        """Waits until what was saved is on disk."""
        with _full_disk_explained():
            self.manager.wait_until_finished()
            self.manager.close()
