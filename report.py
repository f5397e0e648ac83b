"""Compares runs in a table on the console and in a page, Markdown or JSON.

python report.py --runs=runs/rnn,runs/transformer --output=report.html,report.md
python report.py --runs=runs/sweep --output=sweep.html

A directory that exists is one, whatever commas its name has. That of a sweep yields
its trials; the config of the best trial is written next to the report, as a file for
train.py.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from utils import cli, cli_inputs
from utils.errors import UserError
from utils.paths import canonical_path

RUNS = flags.DEFINE(
    cli_inputs.PlacesParser(),
    "runs",
    None,
    "Run or sweep directories, separated by commas.",
    required=True,
)
OUTPUT = flags.DEFINE(
    cli_inputs.PlacesParser(),
    "output",
    ["report.html"],
    "Files to write: .html, .md or .json.",
)
CONTEXT = flags.DEFINE(
    cli_inputs.PlacesParser(),
    "context",
    [],
    "effective-context.json of the runs, or folders with one.",
)
TESTS = flags.DEFINE_bool("significance", True, "Test systems in pairs.")

SUFFIXES = (".html", ".md", ".json")


def main() -> None:
    """Prints the table and the paths of the files."""
    paths = [path.strip() for path in RUNS.value if path.strip()]
    if not paths:
        raise UserError("--runs is empty: name run directories, --runs=DIR1,DIR2")
    outputs = [Path(name.strip()).expanduser() for name in OUTPUT.value]
    if not outputs:
        raise UserError("--output is empty: name a file, --output=report.html")

    for path in outputs:
        if path == Path() or path.is_dir():
            raise UserError(f"--output={path} is a directory: name a file in it")
        if path.suffix not in SUFFIXES:
            raise UserError(f"--output={path} must end in one of {', '.join(SUFFIXES)}")
    from analysis.report import renderers
    from analysis.report.content import Content
    from analysis.report.tables import format_console_table
    from analysis.report.uploads import upload_report

    render = {
        ".html": renderers.render_html,
        ".md": renderers.render_markdown,
        ".json": renderers.render_json,
    }
    content = Content.from_paths(paths, CONTEXT.value, is_tested=TESTS.value)
    texts = {path: render[path.suffix](content) for path in outputs}
    names = unique_names([sweep.path for sweep in content.sweeps])
    for name, sweep in zip(names, content.sweeps, strict=True):
        texts[outputs[0].parent / f"best-{name}.py"] = sweep.best_config()
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"--output={path}: {error.filename} is a file") from error
        path.write_text(text, encoding="utf8")
    upload_report(content, outputs)
    print(content.comparison.title)
    print(format_console_table(content.rows))
    for warning in content.warnings():
        print(f"warning: {warning}")
    for path in texts:
        print(path)


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Returns the names of folders, with as many parents as make them unique."""
    parts = [canonical_path(folder).parts[1:] for folder in folders]
    length = 1
    while len({part[-length:] for part in parts}) < len(set(parts)):
        length += 1
    return ["-".join(part[-length:]) for part in parts]


if __name__ == "__main__":
    cli.run_main(main)
