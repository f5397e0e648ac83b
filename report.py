"""Compares runs: a table on the console, and one HTML page with all the rest.

python report.py --runs=runs/rnn,runs/transformer --output=report.html
"""

from pathlib import Path

from absl import flags

import cli
from errors import UserError

RUNS = flags.DEFINE_list(
    "runs", None, "Run directories, with commas between.", required=True
)
OUTPUT = flags.DEFINE_string("output", "report.html", "The page to write.")


def main() -> None:
    """Prints the table, then the page's path."""
    from analysis import comparison, report_page, runs, score_table

    paths = [path.strip() for path in RUNS.value if path.strip()]
    if not paths:
        raise UserError("--runs is empty: name run directories, --runs=DIR1,DIR2")
    output = Path(OUTPUT.value).expanduser()
    if not OUTPUT.value or output.is_dir():
        raise UserError(f"--output={OUTPUT.value} is a directory: name a file in it")
    compared = comparison.Comparison.of(runs.read_runs(paths))
    page = report_page.render(compared)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"--output={output}: {error.filename} is a file") from error
    output.write_text(page, encoding="utf8")
    print(compared.title)
    print(score_table.plain_table(score_table.score_rows(compared)))
    for warning in compared.warnings():
        print(f"warning: {warning}")
    print(output)


if __name__ == "__main__":
    cli.start(main)
