"""How much context models make use of: RECL (Dai et al. 2019, appendix C).

python -m analysis.effective_context --runs=runs/a,runs/b,runs/c

The relative effective context length of each model of a group: the shortest context
of which more would gain it less than one per cent, counted where all models of the
group find little. Runs must share text and vocabulary. Writes effective-context.json
and .png to --output.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from analysis.effective_context.context_losses import context_losses, spread_places
from analysis.effective_context.recl import draw, parse_lengths, report, table
from data.dataset import Dataset, open_dataset
from experiment.restore import TrainedRun, check_data, open_run
from utils import cli
from utils.errors import UserError

NAME = "effective-context"

RUNS = flags.DEFINE_list("runs", None, "Run directories of a group.", required=True)
SPLIT = flags.DEFINE_string("split", "validation", "Split whose tokens are predicted.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, last or a step.")
LENGTHS = flags.DEFINE_list(
    "lengths",
    [str(32 * i) for i in range(1, 11)],
    "Context lengths in tokens, a step apart.",
)
PLACES = flags.DEFINE_integer("places", 1024, "Tokens predicted, all over the split.")
ROWS = flags.DEFINE_integer("rows", 64, "Windows read side by side.")
MEMORY = flags.DEFINE_integer(
    "memory_length", None, "Of runs of Transformer-XL, instead of their own."
)
OUTPUT = flags.DEFINE_string("output", ".", "Folder for the figures.")


def measure(
    runs: Sequence[tuple[TrainedRun, Dataset]],
    lengths: Sequence[int],
    *,
    split: str,
    places: int,
    rows: int,
) -> np.ndarray:
    """l_i(c, t) of each run, [runs, lengths, places].

    Raises UserError for a split too short for the longest context.
    """
    losses = []
    for run, dataset in runs:
        cfg = run.experiment.cfg
        text = dataset.evaluation_batches(split, batch_size=1).text.tokens
        if len(text) <= lengths[-1]:
            raise UserError(
                f"--lengths up to {lengths[-1]}: {split} has {len(text)} tokens"
            )
        found = context_losses(
            run.experiment.evaluation_model,
            run.variables,
            text,
            spread_places(len(text), lengths[-1], places),
            lengths,
            rows=rows,
            segment_length=cfg.eval.segment_length or cfg.data.segment_length,
        )
        losses.append(found)
    return np.stack(losses)


def open_group(
    workdirs: Sequence[str], checkpoint: str, memory_length: int | None
) -> list[tuple[TrainedRun, Dataset]]:
    """Runs and their text, which is the same for all.

    Raises UserError for a run of another task, or of other data or vocabulary than
    the first.
    """
    group = []
    for workdir in workdirs:
        run = open_run(workdir, checkpoint)
        cfg = run.experiment.cfg
        if run.experiment.task.model_class != "LanguageModel":
            raise UserError(f"{workdir} is of {cfg.task}: a text model is needed")
        if memory_length is not None and cfg.model.name == "transformer_xl":
            cfg.eval.memory_length = memory_length
        dataset = open_dataset(cfg.data, run.experiment.tokenizers)
        check_data(run.directory, dataset)
        group.append((run, dataset))
        first = group[0][1].hashes
        if dataset.hashes != first:
            raise UserError(
                f"{workdir} has {dataset.hashes} and {workdirs[0]} {first}: "
                "a group shares data and vocabulary"
            )
    return group


def main() -> None:
    """Prints the table and where the files are."""
    lengths = parse_lengths(LENGTHS.value)
    for flag in (PLACES, ROWS):
        if flag.value < 1:
            raise UserError(f"--{flag.name}={flag.value}: at least 1 is needed")
    names = list(dict.fromkeys(RUNS.value))
    runs = open_group(names, CHECKPOINT.value, MEMORY.value)
    sizes = {"split": SPLIT.value, "places": PLACES.value, "rows": ROWS.value}
    losses = measure(runs, lengths, **sizes)
    figures = report(names, lengths, losses)
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    protocol = {"split": SPLIT.value, "memory_length": MEMORY.value}
    document = json.dumps({**protocol, **figures}, indent=1)
    (output / f"{NAME}.json").write_text(document + "\n", encoding="utf8")
    draw(figures, output / f"{NAME}.png")
    print(table(figures))
    print(output / f"{NAME}.json")
    print(output / f"{NAME}.png")


if __name__ == "__main__":
    cli.run_main(main)
