"""Shows the attention weights of every layer and head for given sentences.

python -m analysis.attention --workdir=runs/rnn --text=sentences.txt --output=attention
echo 'two days ago' | python -m analysis.attention --workdir=runs/rnn --output=attention

A line of translation is a source, which the run translates, or a source, a tab and a
target. Lines of a language model are one text: each is read after those before it, and
`--eval.memory_length` sets the length of its memory. A line of another task is an input
of predict.py, whose best output and its probability title the line's maps. Writes
attention.html, a page that loads no other file, attention.json with its numbers, and
PNG files.
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from configs import base
from utils import cli, cli_inputs, strict_json
from utils.errors import UserError
from utils.text_files import read_lines

DEFAULTS = base.get_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.", required=True)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "best, last, a step, or average:N."
)
TEXT = flags.DEFINE_string(
    "text", None, "File of sentences, one per line; default: standard input."
)
OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the page and files.", required=True
)
MOST = flags.DEFINE_integer(
    "most", 8, "Largest number of lines that are read.", lower_bound=1
)
PICTURES = flags.DEFINE_bool("pictures", True, "Whether PNG files are written.")
DECODE = cli_inputs.config_section("decode", DEFAULTS.decode)
EVAL = cli_inputs.config_section("eval", DEFAULTS.eval)


def main() -> None:
    """Prints the path of the page and the number of pictures."""
    from analysis.attention import render
    from analysis.attention.extract import extract_attention
    from experiment.restore import open_run

    lines = list(itertools.islice(input_lines(), MOST.value))
    if not lines:
        raise UserError("The input has no text: provide at least one line")
    changes = {"decode": cli.overrides(DECODE), "eval": cli.overrides(EVAL)}
    run = open_run(WORKDIR.value, CHECKPOINT.value, changes)
    texts = extract_attention(run, lines)
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    title = f"{run.experiment.cfg.model.name} at step {run.step}"
    content = render.page_content(title, texts)
    document = strict_json.dumps(content, ensure_ascii=False) + "\n"
    (output / "attention.json").write_text(document, encoding="utf8")
    page = render.render_page(content, render.find_knockout_page(title, output))
    (output / "attention.html").write_text(page, encoding="utf8")
    if PICTURES.value:
        print(f"{len(render.write_plots(texts, output))} pictures")
    print(output / "attention.html")


def input_lines() -> Iterator[str]:
    """Returns the lines that are not blank."""
    if TEXT.value is not None:
        return filter(str.strip, read_lines("--text", TEXT.value))
    return filter(str.strip, cli_inputs.read_lines(sys.stdin.buffer))


if __name__ == "__main__":
    cli.run_main(main)
