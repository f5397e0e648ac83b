"""Writes the output of a run's model for each line of standard input.

python predict.py --workdir=runs/rnn < source.txt > output.txt

One output line for each input line, in order; a blank line stays blank. A terminal
gets each answer at once. By the task of the run, a line and its output are

translation                a source; its translation
text_to_text               a text of the source column; a text of the target column
language_modeling          a beginning; its continuation
classification             a text, or two with a tab between them; its label or grade
relation_extraction        a text with <e1> and </e1>, <e2> and </e2>; its relation
tagging                    words; their tags, then a tab and the intent, if learned
masked_language_modeling   a text with <mask>; the same with its masks filled

--n_best=N       N output lines for each input line, best first, padded with blank ones:
                 translations, labels or fillings; there is one sequence of tags
--scores         output: a score, a tab, the text. The score of the search or, of the
                 last four tasks, a probability

The other flags are for translation, text_to_text and language_modeling:

--score          score given targets: source, tab, target in; log probability in nats,
                 tab, number of tokens with the end out. Language models: a text a line
--tokens         token ids instead of text: targets, and all text of language models
--prefix         input: source, tab, beginning of the translation
--documents      the model's memory carries over from line to line; a blank line ends it
--workdir=A,B    ensemble: the mean of the runs' distributions. A directory that exists
                 is one, whatever commas its name has
"""

import sys

from absl import flags

from configs import base
from utils import cli, cli_inputs
from utils.errors import UserError

WORKDIR = flags.DEFINE(
    cli_inputs.PlacesParser(),
    "workdir",
    None,
    "Run directory; several, with commas: an ensemble.",
    required=True,
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "best, last, a step, or average:N."
)
N_BEST = flags.DEFINE_integer(
    "n_best", None, "Output lines for each input line; --decode.n_best."
)
SCORES = flags.DEFINE_bool("scores", False, "Write scores before texts.")
SCORE = flags.DEFINE_bool("score", False, "Score given targets.")
TOKENS = flags.DEFINE_bool("tokens", False, "Token ids instead of target text.")
PREFIX = flags.DEFINE_bool("prefix", False, "Continue given beginnings.")
DOCUMENTS = flags.DEFINE_bool("documents", False, "Carry memory from line to line.")
DECODE = cli_inputs.config_section("decode", base.get_config().decode)


def main() -> None:
    """Reads standard input and writes the model's output for each line."""
    if SCORE.value and (SCORES.value or PREFIX.value or N_BEST.value):
        cli.fail("--score cannot be combined with --scores, --prefix or --n_best")
    from experiment import inference

    decode = cli.overrides(DECODE)
    if N_BEST.value is not None:
        decode["n_best"] = N_BEST.value
    if TOKENS.value:
        decode["replace_unknown"] = False  # its words are no tokens
    run = inference.open_runs(WORKDIR.value, CHECKPOINT.value, {"decode": decode})
    if not run.experiment.task.generates_text:
        refuse_flags_of_texts(run.experiment.cfg.task)
    options = {"document_order": DOCUMENTS.value}
    if sys.stdin.isatty():
        options["chunk_size"] = 1
    task = run.experiment.task
    inputs = run.inputs(cli_inputs.read_lines(sys.stdin.buffer))
    if TOKENS.value:
        task = task.with_token_ids()
    if SCORE.value:
        for scored in task.score_targets(*inputs, **options):
            print("{:.4f}\t{}".format(*scored) if scored else "", flush=True)
        return
    options["prefix"] = PREFIX.value
    if not SCORES.value and run.experiment.cfg.decode.n_best == 1:
        for text in task.predict(*inputs, **options):
            print(text, flush=True)
        return
    for hypotheses in task.predict_n_best(*inputs, **options):
        print_n_best(hypotheses, run.experiment.cfg.decode.n_best, scores=SCORES.value)


def refuse_flags_of_texts(task: str) -> None:
    """Raises UserError for a flag that a model of labels or masks does not have."""
    flags = {"score": SCORE, "tokens": TOKENS, "prefix": PREFIX, "documents": DOCUMENTS}
    given = [f"--{name}" for name, flag in flags.items() if flag.value]
    if len(WORKDIR.value) > 1:
        given.append(f"--workdir={','.join(WORKDIR.value)}, an ensemble,")
    if given:
        raise UserError(
            f"{given[0]} is for translation, text_to_text and language_modeling, and "
            f"the run is one of task={task!r}"
        )


def print_n_best(
    hypotheses: list[tuple[str, float]], count: int, *, scores: bool
) -> None:
    """Prints `count` lines, blank ones at the end."""
    texts = [f"{score:.4f}\t{text}" if scores else text for text, score in hypotheses]
    for line in (texts + [""] * count)[:count]:
        print(line, flush=True)


if __name__ == "__main__":
    cli.run_main(main)
