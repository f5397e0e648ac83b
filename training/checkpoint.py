"""Checkpoints of a run, written by orbax: the newest ones and the best ones.

A checkpoint is one folder that appears at once. It holds state and carry as arrays,
progress as JSON, and the SHA-256 of each file, since the storage layer misses some
damage: a flipped bit in the bytes of an array reads as another number.

    <step>/                        a checkpoint; its metadata have the id of its run
    <step>.orbax-checkpoint-tmp/   one that is being written
    <step>.replaced/               one whose step is being written again
    <step>.damaged-<n>/            one that differs from its checksums

Only what this run wrote under these names is moved or deleted.
"""

import contextlib
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental.multihost_utils import broadcast_one_to_all
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from training.checksums import find_corruption, write_checksums
from training.parallel.distributed import is_primary, primary_first
from utils.errors import UserError
from utils.paths import canonical_path, is_remote

NOT_VALIDATED = -1e30  # selection score of a checkpoint without a validation
CONTENT, PROGRESS = "content", "progress"  # folders of a checkpoint
METADATA = "_CHECKPOINT_METADATA"  # file of orbax
COMPLETE = "commit_success.txt"  # file that orbax writes last
# A checkpoint, complete or not, with the folders and files that it may have.
NAMES = re.compile(r"(\d+)(|\.replaced|\.orbax-checkpoint-tmp.*)", re.ASCII)
PARTS = {"content", "progress", "metrics", METADATA, "commit_success", "checksums"}
# Approximate size of a file: many places take none above 16 MiB.
FILE_BYTES = 8 * 2**20


class Checkpoints:
    """The folder `checkpoints/` of a run, with one subfolder for each step.

    Saving happens in the background. A step that was not written whole is not listed.
    """

    def __init__(
        self,
        folder: epath.Path | Path,
        run_id: str = "",
        *,
        last: int = 2,
        best: int = 1,
        is_reader: bool = False,
    ):
        """Opens the folder, and cleans up after a process that was killed.

        Args:
          run_id: id of the run (training/run_dir.py).
          last, best: number of the newest and of the best checkpoints to keep.
          is_reader: nothing is changed; another process may be saving.

        Raises:
          UserError: another run wrote one of the checkpoints, and this one is to save.
        """
        self.folder = epath.Path(canonical_path(folder))
        self.run_id, self.is_reader = run_id, is_reader
        self._saving, self._replaced = 0, None
        if is_reader:
            options = ocp.CheckpointManagerOptions(
                create=False, lightweight_initialize=True
            )
        else:
            if is_primary() and self.folder.exists():
                self._recover()
            options = self._saving_options(last, best)
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def _saving_options(self, last: int, best: int) -> ocp.CheckpointManagerOptions:
        def score(metrics):
            return metrics["selection_score"]

        policies = [preservation.LatestN(last)]
        if best:
            policies.append(preservation.BestN(get_metric_fn=score, n=best))
        return ocp.CheckpointManagerOptions(
            best_fn=score,
            best_mode="max",
            cleanup_tmp_directories=is_remote(self.folder),
            preservation_policy=preservation.AnyPreservationPolicy(policies),
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._write_checksums
            ),
        )

    def _recover(self) -> None:
        """Completes or undoes what a process of this run did when it was killed.

        Raises:
          UserError: the place of a checkpoint is taken by something else.
        """
        for path in sorted(self.folder.iterdir()):
            if not (match := NAMES.fullmatch(path.name)):
                continue
            if not self._is_own(path):
                raise UserError(
                    f"{path} was not written by this run (run_id {self.run_id!r} in "
                    "about.json): move it elsewhere; to start from another run's "
                    "parameters, set init_from"
                )
            step, kind = match.groups()
            target = self.folder / step
            is_complete = (target / COMPLETE).exists()
            if not kind:  # orbax reads all scores, which must be legible
                if is_complete and self.score(int(step)) == -math.inf:
                    self._move_aside(int(step), "its score cannot be read")
            elif is_complete or kind != ".replaced":
                path.rmtree()
            else:  # the kill came before the replacement was complete
                if target.exists():
                    target.rmtree()
                path.rename(target)

    def _is_own(self, folder: epath.Path) -> bool:
        """Whether this run wrote a checkpoint; no link is followed.

        One that is incomplete has no id yet, but only parts of a checkpoint.
        """
        if os.path.islink(folder) or not folder.is_dir():
            return False
        if (folder / COMPLETE).exists():
            return read_run_id(folder) == self.run_id
        return {path.name.partition(".")[0] for path in folder.iterdir()} <= PARTS

    def save(
        self, step: int, content: PyTree, progress: dict, selection_score: float | None
    ) -> None:
        """Starts to save a step, in place of an older checkpoint of it.

        Args:
          content: state and carry.
          progress: a JSON object.
          selection_score: larger is better; None without a validation.
        """
        if selection_score is None or not math.isfinite(selection_score):
            selection_score = NOT_VALIDATED
        content_args = ocp.args.PyTreeSave(
            content, ocdbt_target_data_file_size=FILE_BYTES
        )
        with _explain_full_disk():
            self.manager.wait_until_finished()
            self._drop_replaced()
            if step in self.manager.all_steps():
                self._replace(step)
            self._saving = step
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    content=content_args, progress=ocp.args.JsonSave(progress)
                ),
                metrics={"selection_score": selection_score},
                custom_metadata={"run_id": self.run_id},
                force=True,
            )

    def _replace(self, step: int) -> None:
        """Moves a checkpoint aside until its step is saved again."""
        with primary_first(f"replace checkpoint {step}"):
            if is_primary():
                self._replaced = self.folder / f"{step}.replaced"
                (self.folder / str(step)).rename(self._replaced)
            self.manager.reload()

    def _drop_replaced(self) -> None:
        """Deletes the checkpoint whose step was saved again."""
        if self._replaced and self._is_own(self._replaced):
            self._replaced.rmtree()
        self._replaced = None

    def _write_checksums(self) -> None:
        """Adds checksums to a checkpoint, just before orbax gives it its name."""
        if jax.process_index():
            return
        name = str(self._saving)
        draft = f"{name}.orbax-checkpoint-tmp"  # no glob: it would read the path, too
        drafts = [p for p in self.folder.iterdir() if p.name.startswith(draft)]
        for folder in drafts or [self.folder / name]:
            write_checksums(folder)

    def steps(self) -> list[int]:
        """Returns the steps that can be restored, in ascending order."""
        return sorted(self.manager.all_steps())

    def newest_saved(self) -> int | None:
        """Returns the newest step that is saved whole, without waiting for a save."""
        steps = self.steps()
        if self.manager.is_saving_in_progress():
            steps = [step for step in steps if step != self._saving]
        return max(steps, default=None)

    def restore_newest(self, like: PyTree) -> tuple[PyTree, dict] | None:
        """Returns content and progress of the newest intact checkpoint, if any.

        Damaged checkpoints are moved aside, with a warning.

        Args:
          like: content with the shapes, types and shardings to restore.

        Raises:
          UserError: another version of this code wrote it.
        """
        step = self._newest_intact() if is_primary() else None
        if jax.process_count() > 1:
            step = int(broadcast_one_to_all(np.int32(-1 if step is None else step)))
            step = None if step < 0 else step
            self.manager.reload()
        return None if step is None else self.restore(step, like)

    def score(self, step: int) -> float:
        """Returns the selection score of a step; -inf where it cannot be read."""
        path = self.folder / str(step) / "metrics" / "metrics"
        try:
            return float(json.loads(path.read_text())["selection_score"])
        except (OSError, ValueError, LookupError, TypeError):
            return -math.inf

    def progress(self, step: int) -> dict:
        """Returns the progress of a step, without its arrays."""
        path = self.folder / str(step) / PROGRESS / "metadata"
        return json.loads(path.read_text())

    def _move_aside(self, step: int, corruption: str) -> None:
        names = (f"{step}.damaged-{n}" for n in itertools.count(1))
        aside = next(p for p in map(self.folder.__truediv__, names) if not p.exists())
        print(
            f"warning: checkpoint {step} is damaged ({corruption}); resuming from the "
            f"one before, and moving it to {aside}",
            file=sys.stderr,
        )
        (self.folder / str(step)).rename(aside)

    def _newest_intact(self) -> int | None:
        """Returns the newest intact step, after moving newer ones aside."""
        for step in reversed(self.steps()):
            corruption = self.find_corruption(step)
            if corruption is None:
                return step
            if not self.is_reader:
                self._move_aside(step, corruption)
                self.manager.reload()
        return None

    def find_corruption(self, step: int) -> str | None:
        """Describes the damage of a checkpoint; None for an intact one."""
        return find_corruption(self.folder / str(step))

    def restore(self, step: int, like: PyTree) -> tuple[PyTree, dict]:
        """Returns content, laid out as in `like`, and progress of a step.

        Raises:
          UserError: another version of this code wrote it.
        """
        args = ocp.args.Composite(
            content=restore_args(like), progress=ocp.args.JsonRestore()
        )
        try:
            restored = self.manager.restore(step, args=args)
        except (ValueError, KeyError) as error:  # intact, but of another structure
            raise UserError(
                f"checkpoint {step} is of another version of this code or its "
                f"libraries: {str(error).splitlines()[0][:300]}"
            ) from error
        return restored[CONTENT], restored[PROGRESS]

    def close(self) -> None:
        """Waits until everything saved is on disk."""
        with _explain_full_disk():
            self.manager.wait_until_finished()
            self.manager.close()
        if self._saving:
            self._drop_replaced()


def read_run_id(folder: epath.Path) -> str | None:
    """Returns the id of the run that wrote a checkpoint; None where it is illegible."""
    try:
        metadata = json.loads((folder / METADATA).read_text())
        return metadata["custom_metadata"].get("run_id", "")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def restore_args(tree: PyTree, *, is_part: bool = False) -> ocp.args.PyTreeRestore:
    """Returns what to restore, from shapes.

    Args:
      is_part: the tree is a part of the stored one, and goes to the first device
        whatever its sharding; otherwise leaves without a sharding do.
    """
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def describe(leaf):
        own = None if is_part else getattr(leaf, "sharding", None)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own or first)

    item = jax.tree.map(describe, tree)
    leaf_args = ocp.checkpoint_utils.construct_restore_args(item)
    return ocp.args.PyTreeRestore(item, restore_args=leaf_args, partial_restore=is_part)


@contextlib.contextmanager
def _explain_full_disk() -> Iterator[None]:
    """Turns a failed write of the storage layer into a UserError."""
    try:
        yield
    except ValueError as error:
        if "os_error_code=" not in str(error):
            raise
        raise UserError(
            "a checkpoint could not be written (is the disk full, or a file size "
            f"limited?): {str(error).splitlines()[0][:300]}. Older checkpoints are "
            "intact: make room and run the same command again"
        ) from error
