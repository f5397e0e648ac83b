"""Switches off parts of a trained model and ranks them by what the scores lose.

python -m analysis.knockout --workdir=runs/transformer --output=attention
python -m analysis.knockout --workdir=runs/xl --split=validation --kinds=distance
python -m analysis.knockout --workdir=runs/rnn --examples=200 --generate
python -m analysis.knockout --workdir=runs/xl --names=stack/layers_0,stack/layers_1

Kinds are heads, layers, distance (bands, and the causal effective context length of a
language model beside RECL) and alignment (of the RNN); without --kinds, all that the
model has. Writes knockout.html, a page that loads no other file, knockout.json and
knockout.md to --output; an attention page of the same model there is linked.
"""

import math
from pathlib import Path

from absl import flags

from configs import base
from utils import cli, cli_inputs
from utils.errors import UserError
from utils.paths import DATA_PLACES

DEFAULTS = base.get_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.", required=True)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "best, last, a step, or average:N."
)
SPLIT = flags.DEFINE_string("split", "test", "Split that is scored.")
KINDS = flags.DEFINE_list("kinds", [], "heads, layers, distance, alignment.")
NAMES = flags.DEFINE_list(
    "names", [], "Knockouts instead of all of their kinds; + joins several in one."
)
EXAMPLES = flags.DEFINE_integer(
    "examples",
    0,
    "Sentences, texts or blocks of 128 tokens that suffice; 0: all.",
    lower_bound=0,
)
GENERATE = flags.DEFINE_bool(
    "generate",
    False,
    "Generates texts anew with each knockout, for BLEU or the other metrics; default: "
    "texts have the loss of their references alone.",
)
WIDTH = flags.DEFINE_integer(
    "width",
    None,
    "Knockouts at once, vmapped; default: 1 on CPUs, 16 on accelerators.",
    lower_bound=1,
)
LENGTHS = flags.DEFINE_list(
    "lengths", [], "Contexts in tokens, in equal steps; default: 8 up to all keys."
)
POSITIONS = flags.DEFINE_integer(
    "positions", 256, "Tokens that context lengths are measured at.", lower_bound=1
)
OUTPUT = flags.DEFINE_string("output", None, "Folder of page and files.", required=True)
DATA = cli_inputs.config_section("data", DEFAULTS.data, DATA_PLACES)
DECODE = cli_inputs.config_section("decode", DEFAULTS.decode)
EVAL = cli_inputs.config_section("eval", DEFAULTS.eval)


def main() -> None:
    """Prints the largest effects and the paths of the files."""
    from analysis.effective_context import parse_lengths
    from analysis.knockout.candidates import select_candidates
    from analysis.knockout.context import measure_context
    from analysis.knockout.effects import rank_effects
    from analysis.knockout.evaluation import Subject, default_width
    from analysis.knockout.report import (
        closeness,
        context_rows,
        format_table,
        result_content,
        summary,
        write_report,
    )
    from experiment.restore import open_run
    from utils.text_tables import align_columns

    lengths = parse_lengths(LENGTHS.value) if LENGTHS.value else []
    sections = {"data": DATA, "decode": DECODE, "eval": EVAL}
    changes = {name: cli.overrides(section) for name, section in sections.items()}
    run = open_run(WORKDIR.value, CHECKPOINT.value, changes)
    subject = Subject.open(run, SPLIT.value, EXAMPLES.value)
    candidates = select_candidates(
        subject.sites, KINDS.value, NAMES.value, run.experiment.cfg.model.name
    )
    width = WIDTH.value or default_width()
    knockouts = [subject.sites.identity(), *(one.knockout for one in candidates)]
    if GENERATE.value:
        whole, *outcomes = subject.generated_outcomes(knockouts)
    else:
        whole, *outcomes = subject.outcomes(knockouts, width)
    if not math.isfinite(whole.blocks.mean):
        raise UserError(f"{WORKDIR.value}: losses of {SPLIT.value} are not finite")
    effects = rank_effects(candidates, outcomes, whole)
    context = None
    is_text = subject.task.model_class == "LanguageModel"
    if is_text and any(one.kind == "distance" for one in candidates):
        loss = whole.blocks.mean
        context = measure_context(subject, width, lengths, POSITIONS.value, loss)
    content = result_content(subject, effects, whole, width, context)
    paths = write_report(content, Path(OUTPUT.value))
    print(summary(content))
    print(format_table(content))
    if context:
        rows = context_rows(context)
        print("\n".join(align_columns(rows, "<" + ">" * (len(rows[0]) - 1))))
        print(closeness(context))
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    cli.run_main(main)
