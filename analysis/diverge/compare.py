"""Collection of the evidence: records first, then a replay where they differ."""

import flax.linen as nn

from analysis.diverge.evidence import (
    Comparison,
    compare_checkpoints,
    compare_configs,
    compare_data,
    compare_environments,
    compare_fingerprints,
    compare_logs,
)
from analysis.diverge.programs import compare_step
from analysis.diverge.replay import replay
from analysis.diverge.sides import Side, open_side
from analysis.diverge.verdict import Evidence
from analysis.step_replay.replay import Replay, format_seconds
from experiment.restore import open_experiment
from training.observe.fingerprint import named_arrays
from utils.errors import UserError


def compare_runs(
    first: str, second: str, max_steps: int, places: dict[str, str] | None = None
) -> tuple[Evidence, list[str]]:
    """Compares two runs, each a run directory or a file of fingerprints.

    Args:
      max_steps: largest number of steps of a replay.
      places: folders of the data that have moved, by their key of `cfg.data`.

    Returns:
      The evidence, and notes on what could not be done.

    Raises:
      UserError: they have other parameters, or part too far from a checkpoint.
    """
    sides = open_side(first), open_side(second)
    check_architectures(*sides)
    config, _ = compare_configs(sides[0].config, sides[1].config)
    about = sides[0].about, sides[1].about
    evidence = {
        "config": tuple(config),
        "environment": tuple(compare_environments(*about)),
        "data": tuple(compare_data(*about)),
        "records": tuple(compare_records(*sides)),
    }
    known = Evidence(**evidence)
    if known.first is None and any(one.steps for one in known.records):
        return known, []
    replays, notes = open_replays(sides, places)
    if not any(replays):
        return known, notes
    start, limit = replay_range(sides, known, replays, max_steps)
    replayed = replay(sides, replays, start, limit, max_steps)
    parting, programs = replayed.parting, None
    if parting and parting.before and not parting.has_other_batch:
        programs = compare_step(replays, parting.before)
    return Evidence(**evidence, replayed=replayed, programs=programs), notes


def check_architectures(first: Side, second: Side) -> None:
    """Raises UserError where the parameters have other names or shapes."""
    ours, theirs = parameter_shapes(first), parameter_shapes(second)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            models = (side.config["model"]["name"] for side in (first, second))
            raise UserError(
                f"{first.name} and {second.name} are runs of different architectures "
                f"({' and '.join(models)}): {name} is {ours.get(name, 'missing')} in "
                f"the first and {theirs.get(name, 'missing')} in the second; compare "
                "runs whose parameters have the same names and shapes"
            )


def parameter_shapes(side: Side) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each parameter by name."""
    if side.directory is None:
        named = side.fingerprints.header["arrays"]
        prefix = "params/"
        return {
            name.removeprefix(prefix): tuple(shape)
            for name, shape in named.items()
            if name.startswith(prefix)
        }
    _, experiment = open_experiment(side.name)
    named = named_arrays(nn.meta.unbox(experiment.parameters()))
    return {name: leaf.shape for name, leaf in named.items()}


def compare_records(first: Side, second: Side) -> list[Comparison]:
    """Compares the logs, fingerprints and checkpoints that both have."""
    found = [compare_logs(first.log, second.log)]
    if first.fingerprints and second.fingerprints:
        found.append(compare_fingerprints(first.fingerprints, second.fingerprints))
    if first.directory and second.directory:
        paths = first.directory.path, second.directory.path
        found.append(compare_checkpoints(*paths))
    return found


def open_replays(
    sides: tuple[Side, Side], places: dict[str, str] | None = None
) -> tuple[list[Replay | None], list[str]]:
    """Opens the replays of the runs; returns notes on those that cannot be."""
    replays, notes = [], []
    for letter, side in zip("AB", sides, strict=True):
        opened = None
        if side.directory is None:
            notes.append(f"{letter} is a file of fingerprints, and is not replayed")
        else:
            try:
                opened = Replay.open(side.name, places)
            except UserError as error:
                notes.append(f"{letter} is not replayed: {error}")
        replays.append(opened)
    return replays, notes


def replay_range(
    sides: tuple[Side, Side], known: Evidence, replays, max_steps: int
) -> tuple[int, int]:
    """Returns the number of steps before a replay, and the step that it ends before.

    Raises:
      UserError: there are more steps between them than are allowed.
    """
    able = [one for one in replays if one is not None]
    last = min(one.setup.steps for one in able)
    first = known.first
    if first is None:
        return 0, min(last, max_steps) + 1
    limit = first.step if first.arrays else first.step + 1
    equal = {first.equal} if first.equal else set()
    for one in known.records:
        wrong = one.first.step if one.first else last + 2
        equal |= {step for step in one.steps if step < wrong}
    equal = {step for step in equal if step < first.step}
    if len(able) == 2:
        found = next(one for one in known.records if one.source == "checkpoint")
        equal &= set(found.steps)
    steps = set.intersection(*(set(one.steps) for one in able))
    start = max((step for step in steps if step + 1 in equal), default=0)
    distance = limit - 1 - start
    if distance > max_steps:
        origin = f"checkpoint {start}" if start else "the first state"
        seconds = sum(one.seconds_per_step or 0 for one in able) * distance
        cost = f", about {format_seconds(seconds)}" if seconds else ""
        raise UserError(
            f"the records differ at step {first.step}, {distance} steps after "
            f"{origin}, where the replay would begin{cost}: allow that with "
            f"--max_replay_steps={distance}"
        )
    return start, limit
