"""Translates or continues lines of standard input with a run's model.

python predict.py --workdir=runs/rnn < source.txt > output.txt

One line in, one line out, in order, as it comes; a blank line stays blank. At a
terminal each line is answered at once.

--n_best=N       N lines for each, best first; blank ones where fewer were found
--scores         each with what the search ranked it by: score, tab, text
--score          of given targets: source, tab, target in; log probability in nats, tab,
                 tokens out, the end among them. Language models: a text a line
--prefix         source, tab, beginning of the translation in
--documents      what a model remembers goes from line to line; a blank line ends it
--workdir=A,B    the mean of several runs' distributions: an ensemble
"""

import sys

from absl import flags

from configs import base
from utils import cli

WORKDIR = flags.DEFINE_list(
    "workdir", None, "Run directory; several, with commas: an ensemble.", required=True
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "best, last, a step, or average:N."
)
N_BEST = flags.DEFINE_integer("n_best", None, "Lines for each; --decode.n_best.")
SCORES = flags.DEFINE_bool("scores", False, "Score, tab, text.")
SCORE = flags.DEFINE_bool("score", False, "Scores of given targets.")
PREFIX = flags.DEFINE_bool("prefix", False, "A line is a source, a tab, a beginning.")
DOCUMENTS = flags.DEFINE_bool("documents", False, "A blank line ends a document.")
DECODE = cli.config_section("decode", base.get_config().decode)


def main() -> None:
    """Lines in, lines out."""
    if SCORE.value and (SCORES.value or PREFIX.value or N_BEST.value):
        cli.fail("--score reads targets and searches for none: leave the others out")
    from experiment import restore

    decode = cli.overrides(DECODE)
    if N_BEST.value is not None:
        decode["n_best"] = N_BEST.value
    run = restore.open_runs(WORKDIR.value, CHECKPOINT.value, {"decode": decode})
    keywords = {"document_order": DOCUMENTS.value}
    if sys.stdin.isatty():
        keywords["chunk_size"] = 1
    lines = cli.lines_of(sys.stdin.buffer)
    if SCORE.value:
        for scored in restore.score_targets(run, lines, **keywords):
            print("{:.4f}\t{}".format(*scored) if scored else "", flush=True)
        return
    keywords["prefix"] = PREFIX.value
    if not SCORES.value and run.experiment.cfg.decode.n_best == 1:
        for text in restore.predict(run, lines, **keywords):
            print(text, flush=True)
        return
    for found in restore.predict_n_best(run, lines, **keywords):
        print_all(found, run.experiment.cfg.decode.n_best, scores=SCORES.value)


def print_all(found: list[tuple[str, float]], count: int, *, scores: bool) -> None:
    """As many lines as asked for, blank where there are no more."""
    shown = [f"{score:.4f}\t{text}" if scores else text for text, score in found]
    for line in (shown + [""] * count)[:count]:
        print(line, flush=True)


if __name__ == "__main__":
    cli.run_main(main)
