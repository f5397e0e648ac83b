"""Checkpoints of a run, by orbax: the newest and the best."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental.multihost_utils import broadcast_one_to_all
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from training.checksums import find_corruption, write_checksums
from training.parallel.distributed import is_primary, primary_first
from utils.errors import UserError
from utils.paths import canonical_path

NOT_SCORED = -1e30
CONTENT, PROGRESS = "content", "progress"  # folders of a checkpoint
FILE_BYTES = 8 * 2**20  # of a file, about: many places take none above 16 MiB


class Checkpoints:
    """The folder `checkpoints/` of a run; steps are its subfolders.

    Saving happens in the background; a step that was not written whole is not
    listed. A checkpoint is one folder that appears at once: state and carry as
    arrays, progress as JSON, and digests of all files.
    """

    def __init__(
        self,
        folder: epath.Path | Path,
        *,
        last: int = 2,
        best: int = 1,
        is_reader: bool = False,
    ):
        """Opens it.

        Args:
          last, best: how many of the newest and of the best to keep.
          is_reader: whether nothing is saved. Another process may save then, whose
            drafts are left alone.
        """
        self.folder = epath.Path(canonical_path(folder))
        self.replaced = self.folder.parent / "replaced"
        self._saving = 0
        if not is_reader:
            self._restore_replaced()
        self._move_unreadable()
        policies = [preservation.LatestN(last)]
        if best:
            policies.append(preservation.BestN(get_metric_fn=_goodness, n=best))
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                best_fn=_goodness,
                best_mode="max",
                cleanup_tmp_directories=not is_reader,
                preservation_policy=preservation.AnyPreservationPolicy(policies),
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._write_checksums
                ),
            ),
        )

    def save(
        self, step: int, content: PyTree, progress: dict, selection_score: float | None
    ) -> None:
        """Begins to save; what an earlier run saved of this step is replaced.

        Args:
          content: arrays.
          progress: what JSON can hold.
          selection_score: larger is better; None where nothing was validated.
        """
        scored = selection_score is not None and math.isfinite(selection_score)
        with _full_disk_explained():
            self.manager.wait_until_finished()
            self._drop_replaced()
            if step in self.manager.all_steps():
                self._replace(step)
            self._saving = step
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    content=ocp.args.PyTreeSave(
                        content, ocdbt_target_data_file_size=FILE_BYTES
                    ),
                    progress=ocp.args.JsonSave(progress),
                ),
                metrics={"selection_score": selection_score if scored else NOT_SCORED},
                force=True,
            )

    def _replace(self, step: int) -> None:
        """Moves a checkpoint to where it stays until the step is saved anew."""
        with primary_first(f"replace checkpoint {step}"):
            if is_primary():
                self.replaced.mkdir(parents=True, exist_ok=True)
                (self.folder / str(step)).rename(self.replaced / str(step))
            self.manager.reload()

    def _drop_replaced(self) -> None:
        if is_primary() and self.replaced.exists():
            self.replaced.rmtree()

    def _restore_replaced(self) -> None:
        """Undoes what a kill left of replacing a checkpoint."""
        if not is_primary() or not self.replaced.exists():
            return
        for kept in self.replaced.iterdir():
            place = self.folder / kept.name
            if not place.exists():
                kept.rename(place)
        self._drop_replaced()

    def _write_checksums(self) -> None:
        """Just before a checkpoint gets its name: notes what its files are."""
        if jax.process_index():
            return
        names = f"{self._saving}.orbax-checkpoint-tmp*"
        drafts = list(self.folder.glob(names)) or [self.folder / str(self._saving)]
        for draft in drafts:
            write_checksums(draft)

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending."""
        return sorted(self.manager.all_steps())

    def resolve(self, which: str) -> tuple[int, ...]:
        """The steps meant by "best", "last", a number, or "average:N": the newest N.

        Raises UserError where there are none.
        """
        steps = self.steps()
        if not steps:
            raise UserError(
                f"{self.folder.parent} has no checkpoint yet: train it first"
            )
        if which == "last":
            return (steps[-1],)
        if which == "best":
            return (self.manager.best_step(),)
        name, _, number = which.rpartition(":")
        if name == "average" and number.isdigit() and 0 < int(number) <= len(steps):
            return tuple(steps[-int(number) :])
        if not which.isdigit() or int(which) not in steps:
            there = ", ".join(map(str, steps))
            raise UserError(
                f"checkpoint={which!r}: there are 'best', 'last', steps {there}, and "
                f"'average:N' of the newest N up to {len(steps)} (keep.last keeps more)"
            )
        return (int(which),)

    def restore_newest(self, like: PyTree) -> tuple[PyTree, dict] | None:
        """Content and progress of the newest checkpoint that is whole.

        Damaged ones are moved aside, with a warning. None where there is none.
        Raises UserError for a checkpoint of another version of this code.

        Args:
          like: content with the shapes, types and shardings to restore.
        """
        step = self._newest_whole() if is_primary() else None
        if jax.process_count() > 1:
            step = int(broadcast_one_to_all(np.int32(-1 if step is None else step)))
            step = None if step < 0 else step
            self.manager.reload()
        return None if step is None else self.restore(step, like)

    def _move_unreadable(self) -> None:
        """Moves checkpoints aside whose scores are broken: orbax reads those of all."""
        if jax.process_index() or not self.folder.exists():
            return
        for folder in self.folder.iterdir():
            scores = folder / "metrics" / "metrics"
            if folder.name.isdigit() and scores.exists() and not _is_json(scores):
                self._move_aside(int(folder.name), f"{scores} is no JSON")

    def _move_aside(self, step: int, wrong: str) -> None:
        aside = self.folder.parent / "damaged" / str(step)
        print(
            f"warning: checkpoint {step} is damaged ({wrong}); going on from the "
            f"one before, and moving it to {aside}",
            file=sys.stderr,
        )
        if aside.exists():
            aside.rmtree()
        aside.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / str(step)).rename(aside)

    def _newest_whole(self) -> int | None:
        """Its step; those after it are moved aside, with a warning."""
        for step in reversed(self.steps()):
            wrong = find_corruption(self.folder / str(step))
            if wrong is None:
                return step
            self._move_aside(step, wrong)
            self.manager.reload()
        return None

    def restore(self, step: int, like: PyTree) -> tuple[PyTree, dict]:
        """Content, laid out as in `like`, and progress of a step.

        Raises UserError for a checkpoint of another version of this code.
        """

        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def describe(leaf):
            sharding = getattr(leaf, "sharding", None) or here
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        abstract = jax.tree.map(describe, like)
        how = ocp.checkpoint_utils.construct_restore_args(abstract)
        try:
            found = self.manager.restore(
                step,
                args=ocp.args.Composite(
                    content=ocp.args.PyTreeRestore(abstract, restore_args=how),
                    progress=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError) as error:  # whole, but not what is looked for
            raise UserError(
                f"checkpoint {step} is of another version of this code or its "
                f"libraries: {str(error).splitlines()[0][:300]}"
            ) from error
        return found[CONTENT], found[PROGRESS]

    def restore_params(self, *steps: int) -> PyTree:
        """The parameters alone, on the first device; of several steps the mean.

        Those a model is judged by: where an optimiser or `optim.ema_decay` keeps a
        mean, that. Raises UserError for a damaged checkpoint.
        """
        found = [self._params_of(step) for step in steps]
        if len(found) == 1:
            return found[0]

        def mean(*leaves):
            total = np.mean([np.asarray(leaf, np.float64) for leaf in leaves], axis=0)
            return jnp.asarray(total, leaves[0].dtype)

        return jax.tree.map(mean, *found)

    def _params_of(self, step: int) -> PyTree:
        wrong = find_corruption(self.folder / str(step))
        if wrong:
            raise UserError(
                f"checkpoint {step} is damaged ({wrong}): choose another with "
                "--checkpoint, or train on to make it again"
            )
        folder = self.folder / str(step) / CONTENT
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            stored = reader.metadata(folder).item_metadata["state"]
            if stored.get("ema"):
                return _read(reader, folder, {"ema": stored["ema"]})["ema"]
            optimizer = stored.get("opt_state")
            if isinstance(optimizer, dict) and "average" in optimizer:
                parts = {name: optimizer["average"][name] for name in ("mean", "count")}
                wanted = {"opt_state": {"average": parts}}
                average = _read(reader, folder, wanted)["opt_state"]["average"]
                if int(average["count"]):
                    return average["mean"]
            return _read(reader, folder, {"params": stored["params"]})["params"]

    def close(self) -> None:
        """Waits until what was saved is on disk."""
        with _full_disk_explained():
            self.manager.wait_until_finished()
            self.manager.close()
        if self._saving:
            self._drop_replaced()


def _is_json(path: epath.Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def _goodness(metrics: dict[str, float]) -> float:
    return metrics["selection_score"]


def _read(reader: ocp.Checkpointer, folder: epath.Path, wanted: PyTree) -> PyTree:
    """Part of a state, on the first device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def describe(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)

    wanted = {"state": jax.tree.map(describe, wanted)}
    restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
    content = reader.restore(
        folder,
        args=ocp.args.PyTreeRestore(
            item=wanted, restore_args=restore_args, partial_restore=True
        ),
    )
    return content["state"]


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
