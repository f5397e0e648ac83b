"""Evaluation of trained runs, one or an ensemble of several."""

import dataclasses
import operator
import sys
from pathlib import Path

import numpy as np

from data.tokenizers.build import dump_tokenizer
from decoding.ensemble import Ensemble, ensemble_variables
from experiment.build import Experiment
from experiment.restore import TrainedRun, open_run
from training.profiling.environment import commit
from training.run_dir import RunDirectory, describe_differences
from training.trackers.registry import upload_results
from utils.errors import UserError
from utils.paths import is_read_only


@dataclasses.dataclass(frozen=True)
class EnsembleExperiment(Experiment):
    """Experiment whose model is an ensemble of several runs' evaluation models."""

    @property
    def evaluation_model(self) -> Ensemble:
        """The ensemble, whose models have the changes of `cfg.eval` already."""
        return self.model


def open_runs(
    workdirs: list[str], checkpoint: str = "best", changes: dict | None = None
) -> TrainedRun:
    """Opens a run, or several as an ensemble with the first one's directory and config.

    Raises:
      UserError: tasks or vocabularies differ, or as `open_run`.
    """
    if not workdirs:
        raise UserError("--workdir is empty: name a run directory")
    runs = [open_run(workdir, checkpoint, changes) for workdir in workdirs]
    first = runs[0]
    if len(runs) == 1:
        return first
    for other in runs[1:]:
        _check_compatible(first, other)
    models = tuple(run.experiment.evaluation_model for run in runs)
    own = {field.name for field in dataclasses.fields(Experiment)} - {"model"}
    parts = {name: getattr(first.experiment, name) for name in own}
    return dataclasses.replace(
        first,
        experiment=EnsembleExperiment(**parts, model=Ensemble(models)),
        variables=ensemble_variables([run.variables for run in runs]),
    )


def _check_compatible(one: TrainedRun, other: TrainedRun) -> None:
    """Raises UserError where two runs cannot be in one ensemble."""
    both = f"an ensemble of {one.directory.path} and {other.directory.path}"
    experiments = one.experiment, other.experiment
    for key in ("task", "data.document_order", "model.dtype"):
        first, second = (operator.attrgetter(key)(each.cfg) for each in experiments)
        if first != second:
            raise UserError(
                f"{both}: {key} is {first!r} in one and {second!r} in the "
                "other, and must be the same"
            )
    for side in one.experiment.tokenizers:
        first, second = (each.tokenizers[side] for each in experiments)
        if dump_tokenizer(first) != dump_tokenizer(second):
            raise UserError(
                f"{both}: their {side} vocabularies differ ({first.vocab_size} and "
                f"{second.vocab_size} tokens): train both with one, "
                "data.vocabulary=FILE or init_from"
            )


def evaluate(run: TrainedRun, split: str) -> tuple[dict, Path | None]:
    """Scores a run on a split; returns the score card and its path.

    Files beside the card have what is needed to compare runs: the sums of losses,
    and, for translations, all hypotheses and references. The path is None, with a
    warning, where the run directory cannot be written.
    """
    experiment = run.experiment
    task, model, cfg = experiment.task, experiment.evaluation_model, experiment.cfg
    dataset = run.open_dataset()
    batches, inputs = task.evaluation_inputs(experiment, dataset, split)
    card = task.evaluate(model, run.variables, batches, cfg, **inputs, intervals=True)
    artifacts = {key: card.pop(key, []) for key in ("samples", "references", "blocks")}
    card["protocol"] |= {
        "checkpoint": list(run.steps) if len(run.steps) > 1 else run.step,
        **task.hashes(dataset, split),
        "commit": commit(),
        "config": f"{cfg.task}, {cfg.model.name} on {cfg.data.name}",
    }
    if truncated := task.truncated(dataset, split, cfg):
        card["protocol"]["truncated"] = truncated
    baselines = task.baselines(dataset, split, **inputs)
    card = {"split": split, "step": run.step, **card, "baselines": baselines}
    warn_if_overwriting(run, split, card)
    try:
        write_eval_artifacts(run.directory, run.name(split), **artifacts)
        path = run.directory.write_json(f"eval/{run.name(split)}.json", card)
        upload_results(run.directory)
        return card, path
    except OSError as error:
        if not is_read_only(error):
            raise
        print(f"warning: the score card is not saved: {error}", file=sys.stderr)
        return card, None


def warn_if_overwriting(run: TrainedRun, split: str, card: dict) -> None:
    """Warns before a score card of another protocol is replaced."""
    name = f"eval/{run.name(split)}.json"
    if not (run.directory.path / name).exists():
        return
    before = run.directory.read_json(name).get("protocol", {})
    before |= {"commit": card["protocol"]["commit"]}
    if differences := describe_differences(before, card["protocol"]):
        print(
            f"{name} is replaced: its settings (there) differ from the new ones "
            f"(here): {'; '.join(differences)} (python -m analysis.publish_results "
            "--keep keeps a card)",
            file=sys.stderr,
        )


def write_eval_artifacts(
    directory: RunDirectory, name: str, samples: list, references: list, blocks
) -> None:
    """Writes what is too long for a score card to files beside it."""
    directory.write_lines(f"samples/{name}.jsonl", samples)
    if samples:
        hypotheses = [sample["hypothesis"] for sample in samples]
        for side, lines in (("hypotheses", hypotheses), ("references", references)):
            path = directory.path / "samples" / f"{name}.{side}.txt"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf8")
    totals, weights = blocks.total.astype(np.float32), blocks.weight.astype(np.uint32)
    directory.write_arrays(f"eval/{name}.npz", {"total": totals, "weight": weights})
