"""Measures how much context models use: RECL (Dai et al. 2019, appendix C).

python -m analysis.effective_context --runs=runs/a,runs/b,runs/c

The runs must share text and vocabulary; the lengths of a group are relative to each
other. Writes effective-context.json and effective-context.png to --output.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from analysis import effective_context
from configs import base
from data.dataset import Dataset
from experiment.restore import TrainedRun, open_run
from utils import cli, cli_inputs, strict_json
from utils.errors import UserError
from utils.paths import DATA_PLACES

RUNS = flags.DEFINE(
    cli_inputs.PlacesParser(),
    "runs",
    None,
    "Run directories of a group.",
    required=True,
)
SPLIT = flags.DEFINE_string("split", "validation", "Split whose tokens are predicted.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, last or a step.")
LENGTHS = flags.DEFINE_list(
    "lengths",
    [str(32 * i) for i in range(1, 11)],
    "Context lengths in tokens, in equal steps.",
)
PLACES = flags.DEFINE_integer(
    "places", 1024, "Predicted tokens, all over the split.", lower_bound=1
)
ROWS = flags.DEFINE_integer("rows", 64, "Windows read in parallel.", lower_bound=1)
MEMORY = flags.DEFINE_integer(
    "memory_length", None, "Memory length of Transformer-XL; default: the run's own."
)
OUTPUT = flags.DEFINE_string("output", ".", "Folder of the files.")
DATA = cli_inputs.config_section("data", base.get_config().data, DATA_PLACES)


def open_group(
    workdirs: Sequence[str],
    checkpoint: str,
    memory_length: int | None,
    changes: dict | None = None,
) -> list[tuple[TrainedRun, Dataset]]:
    """Opens runs of language models with their text.

    Raises UserError for another task, or other data or vocabulary than the first's.
    """
    group = []
    for workdir in workdirs:
        run = open_run(workdir, checkpoint, changes)
        cfg = run.experiment.cfg
        if run.experiment.task.model_class != "LanguageModel":
            raise UserError(f"{workdir} has task {cfg.task}: language models only")
        if memory_length is not None and cfg.model.name == "transformer_xl":
            cfg.eval.memory_length = memory_length
        dataset = run.open_dataset()
        group.append((run, dataset))
        first = group[0][1].hashes
        if dataset.hashes != first:
            raise UserError(
                f"{workdir} has {dataset.hashes} and {workdirs[0]} {first}: the runs "
                "of a group must share data and vocabulary"
            )
    return group


def main() -> None:
    """Prints the table and the paths of the files."""
    lengths = effective_context.parse_lengths(LENGTHS.value)
    names, split = list(dict.fromkeys(RUNS.value)), SPLIT.value
    if not names:
        raise UserError("--runs is empty: name run directories, --runs=DIR1,DIR2")
    losses = []
    changes = {"data": cli.overrides(DATA)}
    for run, dataset in open_group(names, CHECKPOINT.value, MEMORY.value, changes):
        cfg = run.experiment.cfg
        text = dataset.evaluation_batches(split, batch_size=1).text.tokens
        if len(text) <= lengths[-1]:
            raise UserError(
                f"--lengths up to {lengths[-1]} are too long: {split} has {len(text)} "
                "tokens"
            )
        values = effective_context.context_losses(
            run.experiment.evaluation_model,
            run.variables,
            text,
            effective_context.evenly_spaced(len(text), lengths[-1], PLACES.value),
            lengths,
            batch_size=ROWS.value,
            segment_length=cfg.eval.segment_length or cfg.data.segment_length,
        )
        if not np.isfinite(values).all():
            raise UserError(f"{run.directory.path}: losses of {split} are not finite")
        losses.append(values)
    summary = effective_context.summarize(names, lengths, np.stack(losses))
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    protocol = {"split": split, "memory_length": MEMORY.value}
    numbers, picture = (output / f"effective-context{end}" for end in (".json", ".png"))
    document = strict_json.dumps({**protocol, **summary}, indent=1)
    numbers.write_text(document + "\n", encoding="utf8")
    effective_context.plot(summary, picture)
    print(effective_context.format_table(summary))
    print(numbers)
    print(picture)


if __name__ == "__main__":
    cli.run_main(main)
