"""The glue: from a config to data, model, task, optimiser and a trained run.

`experiment/` is the only package that knows all others.
"""

import contextlib
import json
import sys

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from data.dataset import SIDES, Dataset, open_dataset
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import dump_tokenizer
from experiment.build import build_experiment, get_task_class
from experiment.restore import (
    TrainedRun,
    check_data,
    evaluation_input,
    open_run,
    read_tokenizers,
)
from experiment.setup import TrainingSetup, num_parameters
from experiment.validate import check_config, check_corpus, device_warnings
from training.checkpoint import Checkpoints
from training.init_from import init_from_params
from training.loop import ExitStatus, TrainLoop
from training.metric_writers import MetricWriters
from training.nonfinite import save_batches
from training.optim.nt_asgd import eval_params
from training.optim.param_groups import check_patterns
from training.parallel.distributed import (
    AnyProcessFlag,
    DistributedConfig,
    exit_on_peer_loss,
    initialize,
    is_primary,
    is_single_process,
    primary_first,
)
from training.parallel.mesh import fully_replicated
from training.profiling.environment import environment_info, make_deterministic
from training.profiling.peak_flops import peak_flops_per_second
from training.profiling.trace import Profile, parse_steps
from training.progress import TrainProgress
from training.run_dir import RunDirectory, describe_differences
from training.signals import InterruptibleBatches, StopRequested, raise_on_signal
from training.step import TrainState
from utils.errors import UserError
from utils.locks import exclusive_lock


def train(
    cfg: ConfigDict,
    workdir: str,
    address: DistributedConfig | None = None,
    profile: str | None = None,
) -> ExitStatus:
    """Trains to the end, from the newest checkpoint if there is one.

    Returns why training ended, with everything saved.

    Args:
      address: where the processes of this run meet; None: there is this one.
      profile: "FROM:TO", the first and the last step to trace; None: none is.
    """
    steps = parse_steps(profile) if profile else None
    try:
        with raise_on_signal(), exit_on_peer_loss(), contextlib.ExitStack() as held:
            if address is not None:
                initialize(address)
            return _train(cfg, workdir, steps, held)
    except StopRequested:  # before the first step
        return ExitStatus.STOPPED


def _train(
    cfg: ConfigDict,
    workdir: str,
    steps: tuple[int, int] | None,
    held: contextlib.ExitStack,
) -> ExitStatus:
    if cfg.deterministic:
        make_deterministic()
    directory = RunDirectory(workdir)
    profile = Profile(steps, directory.path / "profile")
    config = resolve_config(cfg, directory)
    with primary_first("data"):
        is_new = cfg.init_from and not directory.is_complete
        origin = open_run(cfg.init_from) if is_new else None
        dataset = open_dataset(cfg.data, known_tokenizers(cfg, directory, origin))
    check_corpus(cfg, dataset)
    experiment = build_experiment(cfg, dataset.tokenizers, dataset.corpus.languages)
    training = TrainingSetup.from_experiment(experiment, dataset)
    state = training.partitioner.init(training.make_state)
    carry = training.make_carry()
    check_patterns(cfg.optim, state.params)
    # What a run could not go on with is refused before it begins.
    validate = validator(training, dataset)
    if origin:
        state = init_from_run(origin, state, cfg)
    facts = run_metadata(state, dataset, training.steps)
    if is_primary():
        held.enter_context(exclusive_lock(directory.path))
        init_run_dir(directory, config, facts, dataset)
        for line in device_warnings(cfg):
            print(line, file=sys.stderr)

    checkpoints = Checkpoints(
        directory.checkpoints, last=cfg.keep.last, best=cfg.keep.best
    )
    progress = TrainProgress()
    found = checkpoints.restore_newest(training.checkpoint_state(state, carry))
    if found:
        content, document = found
        state, carry = training.from_checkpoint(content, carry)
        progress = TrainProgress.from_json(document)
        progress.reset_nonfinite(cfg.max_nonfinite_steps)
        if is_primary():
            print(f"resuming at step {int(state.step)}")
    elif cfg.init_from and not origin:  # killed before its first checkpoint
        state = init_from_run(open_run(cfg.init_from), state, cfg)
    run = TrainLoop(
        step=profile.around(training.compiled_step(state, carry), int(state.step)),
        batch=training.batch,
        checkpoint_state=training.checkpoint_state,
        validate=validate,
        best=selection_metric(cfg),
        steps=training.steps,
        log_every=cfg.every.log,
        eval_every=cfg.every.eval,
        save_every=cfg.every.checkpoint,
        patience=cfg.keep.patience,
        max_nonfinite_steps=cfg.max_nonfinite_steps,
        checkpoints=checkpoints,
        writers=MetricWriters(
            directory.path,
            progress,
            step=int(state.step),
            steps=training.steps,
            silent=not is_primary(),
        ),
        flops=training.flops(state),
        ceiling=peak_flops_per_second(cfg.model.dtype),
        sync_stop=None if is_single_process() else AnyProcessFlag(),
    )
    with profile:
        _, ending = run.train(state, carry, progress)
    if ending is ExitStatus.NOT_FINITE and is_primary():
        dump_nonfinite(directory, training, progress)
    return ending


def init_from_run(origin: TrainedRun, state: TrainState, cfg: ConfigDict) -> TrainState:
    """A first state with the parameters of another run."""
    params = init_from_params(
        state.params, origin.variables["params"], cfg.init_params_pattern
    )
    ema = jax.tree.map(jnp.copy, params) if cfg.optim.ema_decay else ()
    return state.replace(params=params, ema=ema)


def resolve_config(cfg: ConfigDict, directory: RunDirectory) -> dict:
    """A config as JSON. Raises UserError for one that cannot be, or not there."""
    config = json.loads(cfg.to_json_best_effort())
    directory.check_config(config)
    check_config(cfg)
    return config


def known_tokenizers(
    cfg: ConfigDict, directory: RunDirectory, origin: TrainedRun | None
) -> dict[str, Tokenizer] | None:
    """Those of a run that goes on, or of the one whose parameters it takes."""
    if directory.is_complete:
        return read_tokenizers(directory)
    if origin is None or cfg.data.vocabulary:
        return None
    sides = SIDES[get_task_class(cfg.task).corpus_kind]
    if set(sides) != set(origin.experiment.tokenizers):
        raise UserError(
            f"init_from={cfg.init_from!r} has vocabularies for "
            f"{', '.join(origin.experiment.tokenizers)}, and task={cfg.task!r} needs "
            f"others: set data.vocabulary"
        )
    return origin.experiment.tokenizers


def init_run_dir(
    directory: RunDirectory, config: dict, facts: dict, dataset: Dataset
) -> None:
    """Writes what a run directory begins with, or checks what one began with."""
    if directory.is_complete:
        check_data(directory, dataset)
        there = directory.read_json("about.json")
        known = {key: facts[key] for key in there if key in facts}
        for line in describe_differences(there, known):
            print(f"resuming although {line}", file=sys.stderr)
        return
    directory.write_json("config.json", config)
    documents = {k: dump_tokenizer(v) for k, v in dataset.tokenizers.items()}
    directory.write_tokenizers(documents)
    directory.write_about(facts)  # the last: makes it complete


def selection_metric(cfg: ConfigDict) -> tuple[str, str]:
    """The validation score that chooses checkpoints, and "min" or "max"."""
    task = get_task_class(cfg.task)
    name = cfg.keep.metric or task.selection_metric
    return name, task.metric_directions[name]


def validator(training: TrainingSetup, dataset: Dataset):
    """From a state to the scores of the validation split, by name."""
    experiment = training.experiment
    batches, extra = evaluation_input(experiment, dataset, "validation")
    model = experiment.evaluation_model

    def validate(state: TrainState, stopped) -> dict[str, float]:
        params = fully_replicated(eval_params(state))
        with training.partitioner.evaluation():
            card = experiment.task.evaluate(
                model,
                {"params": params},
                InterruptibleBatches(batches, stopped),
                experiment.cfg,
                **extra,
            )
        return {name: score["value"] for name, score in card["scores"].items()}

    return validate


def dump_nonfinite(
    directory: RunDirectory, training: TrainingSetup, progress: TrainProgress
) -> None:
    """Says which steps were not finite, and keeps their batches."""
    steps = progress.consecutive_nonfinite
    batches = {step: training.batches[step - 1] for step in steps}
    path = directory.path / "replay" / f"steps-{steps[0]}-{steps[-1]}.npz"
    save_batches(path, batches)
    print(
        f"steps {steps[0]} to {steps[-1]} had no finite loss or gradient; look at "
        f"their batches with: train.py --workdir={directory.path} --replay={path}",
        file=sys.stderr,
    )


def run_metadata(state: TrainState, dataset: Dataset, steps: int | None) -> dict:
    """What a run's numbers depend on beside its config.

    Args:
      steps: of its whole training; None where it was trained elsewhere.
    """
    corpus = dataset.corpus
    return {
        **environment_info(),
        "steps": steps,
        "parameters": num_parameters(state.params),
        "hashes": dataset.hashes,
        "corpus": {"name": corpus.name, "version": corpus.version},
        "languages": list(corpus.languages),
        "examples": dict(corpus.splits),
        "dropped": dataset.dropped,
    }
