"""Where a model looks, at every layer and head, in any sentences.

python -m analysis.attention --workdir=runs/rnn --text=sentences.txt --output=looks
echo 'two days ago' | python -m analysis.attention --workdir=runs/rnn --output=looks

A line of translation is a source, which the run translates, or a source, a tab and a
target to look at instead. Lines of a language model are one text: each is read after
those before it, and `--eval.memory_length` says how far back it remembers. Writes
attention.html, one page that needs nothing beside itself, attention.json with its
numbers, and PNG files.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from configs import base
from utils import cli
from utils.errors import UserError

DEFAULTS = base.get_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.", required=True)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "best, last, a step, or average:N."
)
TEXT = flags.DEFINE_string("text", None, "Sentences, a line each; else standard input.")
OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for page and files.", required=True
)
MOST = flags.DEFINE_integer("most", 8, "Lines that are read, the first ones.")
PICTURES = flags.DEFINE_bool("pictures", True, "Whether PNG files are drawn.")
DECODE = cli.config_section("decode", DEFAULTS.decode)
EVAL = cli.config_section("eval", DEFAULTS.eval)


def main() -> None:
    """Prints where the page is, and how much lies beside it."""
    from analysis.attention import page, plot
    from analysis.attention.extract import views
    from experiment.restore import open_run

    if MOST.value < 1:
        raise UserError(f"--most={MOST.value}: at least 1 line is needed")
    lines = list(itertools.islice(given_lines(), MOST.value))
    if not lines:
        raise UserError("there is no text: give a line or more")
    changes = {"decode": cli.overrides(DECODE), "eval": cli.overrides(EVAL)}
    run = open_run(WORKDIR.value, CHECKPOINT.value, changes)
    found = views(run, lines)
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    title = f"{run.experiment.cfg.model.name} at step {run.step}"
    content = page.content(title, found)
    document = json.dumps(content, ensure_ascii=False)
    (output / "attention.json").write_text(document + "\n", encoding="utf8")
    document = page.render(content)
    (output / "attention.html").write_text(document, encoding="utf8")
    if PICTURES.value:
        print(f"{len(plot.write(found, output))} pictures")
    print(output / "attention.html")


def given_lines() -> Iterator[str]:
    """Lines that are not blank."""
    if TEXT.value is None:
        yield from filter(str.strip, cli.read_lines(sys.stdin.buffer))
        return
    with open(TEXT.value, "rb") as file:
        yield from filter(str.strip, cli.read_lines(file))


if __name__ == "__main__":
    cli.run_main(main)
