"""Training of a config in a run directory, which a second call resumes."""

import contextlib
import json
import pkgutil
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.dataset import Dataset
from data.tokenizers.build import dump_tokenizer
from experiment.build import build_experiment, check_data, open_dataset, read_tokenizers
from experiment.setup import TrainingSetup, num_parameters
from experiment.validate import check_corpus, device_warnings, validate_config
from training.checkpoint import Checkpoints
from training.loop import ExitStatus, RunRecord, TrainLoop
from training.metrics import TrainProgress
from training.optim.on_validation import eval_params
from training.optim.param_groups import check_patterns
from training.parallel.distributed import (
    AnyProcessFlag,
    DistributedConfig,
    exit_on_peer_loss,
    initialize,
    is_primary,
    primary_first,
)
from training.parallel.mesh import Devices, fully_replicated
from training.profiling.environment import (
    environment_info,
    make_deterministic,
    uncommitted_changes,
)
from training.run_dir import RunDirectory, describe_differences
from training.signals import InterruptibleBatches, StopRequested, raise_on_signal
from training.step import TrainState
from training.trackers.registry import tracking
from training.watchdog import Watchdog
from utils.locks import exclusive_lock

# Imported where a run needs them.
INITIAL_RUN = "experiment.init_from:InitialRun"  # cfg.init_from
OBSERVE_RUN = "experiment.observe:observe_run"  # cfg.every.watch or fingerprint
KEEP_BATCHES = "experiment.spikes:keep_batches"
REWIND = "experiment.spikes:rewind"  # cfg.on_spike="skip"
OPEN_PROFILE = "training.profiling.trace:open_profile"  # train.py --profile


def train(
    cfg: ConfigDict,
    workdir: str,
    address: DistributedConfig | None = None,
    profile: str | None = None,
) -> ExitStatus:
    """Trains to the end, from the newest checkpoint if there is one.

    Args:
      address: how the processes of this run find each other; None: there is one.
      profile: "FROM:TO", the steps to trace; None: no step.

    Returns:
      Why training ended; everything is saved then.
    """
    try:
        with raise_on_signal(), exit_on_peer_loss(), contextlib.ExitStack() as stack:
            if address is not None:
                initialize(address)
            return _train(cfg, RunDirectory(workdir), profile, stack)
    except StopRequested:  # before the first step
        return ExitStatus.STOPPED


def _train(
    cfg: ConfigDict,
    directory: RunDirectory,
    profile: str | None,
    stack: contextlib.ExitStack,
) -> ExitStatus:
    """Trains, and leaves the lock of the run directory to `stack`."""
    if cfg.deterministic:
        make_deterministic()
    if profile:
        tracer = pkgutil.resolve_name(OPEN_PROFILE)(profile, directory.path / "profile")
    config = resolve_config(cfg, directory)
    origin, dataset = open_data(cfg, directory)
    setup = make_setup(cfg, dataset)
    state = setup.partitioner.init(setup.make_state)
    carry = setup.make_carry()
    check_patterns(cfg.optim, state.params)
    # What would stop the run later is refused before its directory is written.
    validate = make_validate(setup, dataset)
    if origin:
        state = origin.init_state(state)
    if is_primary():
        stack.enter_context(exclusive_lock(directory.path))
        metadata = run_metadata(state, dataset, setup.steps)
        init_run_dir(directory, config, metadata, dataset)
        for line in device_warnings(cfg):
            print(line, file=sys.stderr)

    checkpoints = setup.open_checkpoints(directory)
    state, carry, progress = resume_or_begin(setup, checkpoints, state, carry, origin)
    first = int(state.step)
    records = [setup.open_record(directory, progress, checkpoints, step=first)]
    if is_primary():
        stack.enter_context(tracking(cfg.track, directory))
    step = setup.compiled_step(state, carry)
    if profile:
        step = stack.enter_context(tracer).around(step, first)
    statuses: list[ExitStatus] = []
    watchdog = stack.enter_context(
        Watchdog(
            cfg.stall_minutes,
            cfg.on_stall,
            lambda: records[0].checkpoints.newest_saved(),
        )
    )
    loop = TrainLoop(
        settings=setup.loop_settings,
        records=records,
        step=step,
        batch=setup.batch,
        checkpoint_state=setup.checkpoint_state,
        validate=validate,
        flops=setup.flops(state),
        sync_stop=AnyProcessFlag() if jax.process_count() > 1 else None,
        sync_save=AnyProcessFlag() if jax.process_count() > 1 else None,
        waiting=watchdog.waiting,
        observe=make_observe(setup, directory, records),
        on_exit=lambda _, status: statuses.append(status),
    )
    loop.train(state, carry)
    while records[0].is_rewound:  # by a spike of the loss
        loop.train(*pkgutil.resolve_name(REWIND)(loop, setup, directory))
    if is_primary():
        dump_nonfinite(directory, setup, records[0])
    return statuses[-1]


def resolve_config(cfg: ConfigDict, directory: RunDirectory) -> dict:
    """Returns a valid config as JSON.

    Raises:
      UserError: it is not valid, or the directory has another run.
    """
    config = json.loads(cfg.to_json_best_effort())
    directory.check_config(config)
    validate_config(cfg)
    return config


def make_observe(
    setup: TrainingSetup, directory: RunDirectory, records: list[RunRecord]
) -> Callable[..., None] | None:
    """Returns what is called before each step, if the config asks for any of it."""
    every = setup.experiment.cfg.every
    if not (every.watch or every.fingerprint):
        return None
    return pkgutil.resolve_name(OBSERVE_RUN)(setup, directory, records)


def open_data(cfg: ConfigDict, directory: RunDirectory) -> tuple[Any | None, Dataset]:
    """Returns the run whose parameters a new run starts from, and the dataset."""
    with primary_first("data"):
        if not cfg.init_from or directory.is_complete:
            return None, prepare_dataset(cfg, directory)
        origin = pkgutil.resolve_name(INITIAL_RUN).open(cfg)
        return origin, origin.open_dataset()


def prepare_dataset(cfg: ConfigDict, directory: RunDirectory) -> Dataset:
    """Opens the dataset, with the tokenizers of a run that resumes."""
    tokenizers = read_tokenizers(directory) if directory.is_complete else None
    return open_dataset(cfg, tokenizers)


def make_setup(
    cfg: ConfigDict, dataset: Dataset, devices: Devices = None
) -> TrainingSetup:
    """Builds the experiment of a config and a dataset, and sets up its training."""
    check_corpus(cfg, dataset)
    experiment = build_experiment(cfg, dataset.tokenizers, dataset.corpus.languages)
    return TrainingSetup.from_experiment(experiment, dataset, devices)


def run_metadata(state: TrainState, dataset: Dataset, steps: int | None) -> dict:
    """Returns what the results of a run depend on beside its config.

    Args:
      steps: the last step; None where the run was trained elsewhere.
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


def init_run_dir(
    directory: RunDirectory, config: dict, metadata: dict, dataset: Dataset
) -> None:
    """Writes the first files of a run, or compares a run that resumes with them."""
    if directory.is_complete:
        check_data(directory, dataset)
        directory.write_places(config["data"])
        about = directory.read_json("about.json")
        before = {key: value for key, value in about.items() if key in metadata}
        now = {key: metadata[key] for key in before}
        prefix = "the environment differs from that of the original run:"
        for line in describe_differences(before, now):
            print(prefix, line, file=sys.stderr)
        return
    directory.write_json("config.json", config)
    directory.write_places(config["data"])
    documents = {k: dump_tokenizer(v) for k, v in dataset.tokenizers.items()}
    directory.write_tokenizers(documents)
    if patch := uncommitted_changes():
        directory.write_text("changes.patch", patch)
    directory.write_about(metadata)  # the last: makes it complete


def resume(
    setup: TrainingSetup, checkpoints: Checkpoints, state: TrainState, carry: PyTree
) -> tuple[TrainState, PyTree, TrainProgress | None]:
    """Returns state, carry and progress of the newest checkpoint.

    Without a checkpoint state and carry are returned as they are, and no progress.
    """
    restored = checkpoints.restore_newest(setup.checkpoint_state(state, carry))
    if restored is None:
        return state, carry, None
    content, document = restored
    state, carry = setup.from_checkpoint(content, carry)
    if is_primary():
        print(f"resuming at step {int(state.step)}")
    return state, carry, resumed_progress(setup, document)


def resume_or_begin(
    setup: TrainingSetup,
    checkpoints: Checkpoints,
    state: TrainState,
    carry: PyTree,
    origin: Any | None = None,
) -> tuple[TrainState, PyTree, TrainProgress]:
    """Returns state, carry and progress of the newest checkpoint, or of the start.

    Args:
      state, carry: those of the start.
      origin: InitialRun of `cfg.init_from`, if the state has its parameters already.
    """
    cfg = setup.experiment.cfg
    state, carry, progress = resume(setup, checkpoints, state, carry)
    if progress is None and cfg.init_from and not origin:
        state = pkgutil.resolve_name(INITIAL_RUN).open(cfg).init_state(state)
    return state, carry, progress or TrainProgress()


def resumed_progress(setup: TrainingSetup, document: dict) -> TrainProgress:
    """Returns the progress of a checkpoint for another attempt."""
    progress = TrainProgress(**document)
    settings = setup.loop_settings
    progress.reset_nonfinite(settings.max_nonfinite_steps, settings.steps)
    setup.batches.skip(progress.skipped_batches)
    return progress


def make_validate(
    setup: TrainingSetup, dataset: Dataset
) -> Callable[[TrainState, threading.Event], dict[str, float]]:
    """Returns (state, stopped) -> scores of the validation split, by name."""
    experiment = setup.experiment
    task, model = experiment.task, experiment.evaluation_model
    batches, inputs = task.evaluation_inputs(experiment, dataset, "validation")

    def validate(state: TrainState, stopped: threading.Event) -> dict[str, float]:
        params = fully_replicated(eval_params(state))
        with setup.partitioner.evaluation():
            card = task.evaluate(
                model,
                {"params": params},
                InterruptibleBatches(batches, stopped),
                experiment.cfg,
                **inputs,
            )
        return {name: score["value"] for name, score in card["scores"].items()}

    return validate


def dump_nonfinite(
    directory: RunDirectory, setup: TrainingSetup, record: RunRecord
) -> None:
    """Saves the batches of the non-finite steps that ended a run, if any did."""
    steps = record.diverged_steps
    if not steps:
        return
    name = f"steps-{steps[0]}-{steps[-1]}"
    pkgutil.resolve_name(KEEP_BATCHES)(directory, setup, name, steps)
    print(
        f"steps {steps[0]} to {steps[-1]} had no finite loss, gradient or update "
        f"(their batches are in replay/{name}.npz); find the cause with: python -m "
        f"analysis.explain --workdir={directory.path} --step={steps[0]}",
        file=sys.stderr,
    )
