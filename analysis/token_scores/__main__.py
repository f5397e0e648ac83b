"""Colours each token of a text by its log probability, or by that of two runs.

python -m analysis.token_scores --workdir=runs/xl --text=novel.txt --output=page.html
python -m analysis.token_scores --workdir=runs/xl --against_eval.memory_length=0 \
    --text=novel.txt --output=memory.html
python -m analysis.token_scores --workdir=runs/a --against=runs/b --text=pairs.tsv \
    --output=page.html

Lines of a language model are one text, with an end symbol after each, read in segments
as by eval.py; with --join_lines the line breaks are part of it. A line of translation
is a source, a tab and a target. Tokens of a masked language model are masked one by
one. The page loads no other file; it has the alternatives of each token, and the sums
that predict.py --score prints.

With --against the page also shows the difference to a second run: by tokens, or by
words where the vocabularies differ. --against_eval.KEY alone compares a run with
itself, with a key of its evaluation changed.
"""

import sys
from pathlib import Path

from absl import flags

from configs import base
from utils import cli, cli_inputs
from utils.errors import UserError
from utils.text_files import read_lines

DEFAULTS = base.get_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.", required=True)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "best, last, a step, or average:N."
)
AGAINST = flags.DEFINE_string("against", None, "Run directory of a second run.")
AGAINST_CHECKPOINT = flags.DEFINE_string(
    "against_checkpoint", None, "Checkpoint of the second run; default: best."
)
TEXT = flags.DEFINE_string("text", None, "File of lines; default: standard input.")
OUTPUT = flags.DEFINE_string("output", None, "Page to write.", required=True)
TOP = flags.DEFINE_integer(
    "top", 5, "Alternatives of each token.", lower_bound=1, upper_bound=50
)
JOIN_LINES = flags.DEFINE_bool(
    "join_lines", False, "Language models: line breaks are part of one long line."
)
DOCUMENTS = flags.DEFINE_bool(
    "documents", False, "Translation: the memory carries over from line to line."
)
EVAL = cli_inputs.config_section("eval", DEFAULTS.eval)
AGAINST_EVAL = cli_inputs.config_section("against_eval", base.get_config().eval)


def main() -> None:
    """Prints the sums of each run and the path of the page."""
    output = Path(OUTPUT.value).expanduser()
    if output.exists():
        cli.fail(f"--output={output} exists; choose another file")
    if not output.parent.is_dir():
        cli.fail(f"--output={output}: there is no folder {output.parent}")
    from analysis.token_scores import comparison, render
    from analysis.token_scores.scoring import score_run
    from experiment.restore import open_run

    lines = input_lines()
    selected = selected_runs()
    runs = [open_run(*run) for _, *run in selected]
    comparison.check_tasks(runs[0], runs[-1])
    if JOIN_LINES.value and runs[0].experiment.task.model_class != "LanguageModel":
        raise UserError(
            "--join_lines is for language models; this run has "
            f"task={runs[0].experiment.cfg.task!r}"
        )
    scored = []
    for (name, *_), run in zip(selected, runs, strict=True):
        name = f"{name}, step {run.step}"
        options = {"top": TOP.value, "document_order": DOCUMENTS.value}
        scored.append(score_run(run, name, lines, **options))
        totals = scored[-1].totals
        print(
            f"{name}: {totals['log_prob']:.4f} nats, {totals['tokens']} tokens, "
            f"{totals['loss']:.4f} a token"
        )
    compared = comparison.compare(*scored) if len(scored) == 2 else None
    content = render.page_content(scored, compared, TOP.value)
    output.write_text(render.render_page(content), encoding="utf8")
    print(output)


def selected_runs() -> list[tuple]:
    """Returns name, run directory, checkpoint and changes of one run, or of two."""
    changes = cli.overrides(EVAL)
    runs = [_select(WORKDIR.value, CHECKPOINT.value, changes)]
    changes = cli.overrides(AGAINST_EVAL)
    if AGAINST.value or AGAINST_CHECKPOINT.value or changes:
        workdir = AGAINST.value or WORKDIR.value
        runs.append(_select(workdir, AGAINST_CHECKPOINT.value or "best", changes))
        if runs[0] == runs[1]:
            raise UserError(
                f"--against={workdir} is the run itself: name another one, or change "
                "--against_checkpoint or --against_eval.KEY"
            )
    return runs


def _select(workdir: str, checkpoint: str, changes: dict) -> tuple:
    words = [Path(workdir).name, *(f"{key}={value}" for key, value in changes.items())]
    return ", ".join(words), workdir, checkpoint, {"eval": changes}


def input_lines() -> list[str]:
    """Returns the lines of the input, without empty ones at its end."""
    if TEXT.value is not None:
        lines = read_lines("--text", TEXT.value)
    else:
        lines = list(cli_inputs.read_lines(sys.stdin.buffer))
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError("The input has no text: provide at least one line")
    return ["\n".join(lines)] if JOIN_LINES.value else lines


if __name__ == "__main__":
    cli.run_main(main)
