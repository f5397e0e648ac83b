"""Compares runs: a table on the console; a page, Markdown or JSON with all the rest.

python report.py --runs=runs/rnn,runs/transformer --output=report.html,report.md
python report.py --runs=runs/sweep --output=sweep.html

A sweep's directory stands for its trials; beside the report then lies the config of
the best one, ready for train.py.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path

from absl import flags

from utils import cli
from utils.errors import UserError

RUNS = flags.DEFINE_list(
    "runs", None, "Run or sweep directories, with commas between.", required=True
)
OUTPUT = flags.DEFINE_list(
    "output", ["report.html"], "Files to write: .html, .md or .json."
)
CONTEXT = flags.DEFINE_list(
    "context", [], "effective-context.json of the runs, or folders with one."
)
TESTS = flags.DEFINE_bool("significance", True, "Test systems in pairs.")

ENDINGS = {".html": "page", ".md": "markdown", ".json": "json_report"}


def main() -> None:
    """Prints the table, then the paths of what it wrote."""
    paths = [path.strip() for path in RUNS.value if path.strip()]
    if not paths:
        raise UserError("--runs is empty: name run directories, --runs=DIR1,DIR2")
    outputs = [checked(name.strip()) for name in OUTPUT.value]
    if not outputs:
        raise UserError("--output is empty: name a file, --output=report.html")

    from analysis.report import score_table
    from analysis.report.content import Content

    content = Content.of(paths, CONTEXT.value, is_tested=TESTS.value)
    texts = {path: renderer(path)(content) for path in outputs}
    folder = outputs[0].parent
    for name, sweep in zip(best_names(content.sweeps), content.sweeps, strict=True):
        texts[folder / f"best-{name}.py"] = sweep.best_config()
    for path, text in texts.items():
        write(path, text)
    print(content.comparison.title)
    print(score_table.plain_table(content.rows))
    for warning in content.warnings():
        print(f"warning: {warning}")
    for path in texts:
        print(path)


def best_names(sweeps: Iterable) -> list[str]:
    """Of sweeps: those of their folders, with those above where two are the same."""
    parts = [sweep.path.resolve().parts[1:] for sweep in sweeps]
    length = 1
    while len({part[-length:] for part in parts}) < len(set(parts)):
        length += 1
    return ["-".join(part[-length:]) for part in parts]


def checked(name: str) -> Path:
    """A file that a report can be. Raises UserError for another."""
    path = Path(name).expanduser()
    if not name or path.is_dir():
        raise UserError(f"--output={name} is a directory: name a file in it")
    if path.suffix not in ENDINGS:
        raise UserError(f"--output={name} ends in none of {', '.join(ENDINGS)}")
    return path


def renderer(path: Path):
    """From a report's content to the text of such a file."""
    return importlib.import_module(f"analysis.report.{ENDINGS[path.suffix]}").render


def write(path: Path, text: str) -> None:
    """Raises UserError where a folder of the path is a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"--output={path}: {error.filename} is a file") from error
    path.write_text(text, encoding="utf8")


if __name__ == "__main__":
    cli.run_main(main)
