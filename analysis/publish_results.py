"""Keeps runs in docs/results/ and writes the tables of docs/results.md from them.

python -m analysis.publish_results --keep=runs/rnn,runs/lm --into=docs/results/ptb
python -m analysis.publish_results           writes the tables of docs/results.md
python -m analysis.publish_results --check   exit code 2 if they would change

A run that is kept is a run directory for `report.py`, without its checkpoints, without
text of the corpus, and without names of folders of the machine it was made on. In
docs/results.md a table stands between `<!-- results/NAME -->` and `<!-- end -->`.
"""

from pathlib import Path

from absl import flags

from utils import cli
from utils.errors import UserError

KEEP = flags.DEFINE_list("keep", [], "Run directories to keep.")
INTO = flags.DEFINE_string("into", None, "Where to: results/NAME.")
FILE = flags.DEFINE_string("file", "docs/results.md", "The text with the tables.")
CHECK = flags.DEFINE_bool("check", False, "Write nothing; exit code 2 for a change.")


def main() -> None:
    """Keeps runs, or makes the tables."""
    if bool(KEEP.value) != bool(INTO.value):
        raise UserError("--keep=DIR1,DIR2 and --into=results/NAME go together")
    from analysis.kept_runs import keep, with_tables

    names = [Path(path).resolve().name for path in KEEP.value]
    if len(set(names)) < len(names):
        raise UserError(
            f"--keep={','.join(KEEP.value)}: runs are kept by the names of their "
            "directories, and some have the same"
        )
    for path in KEEP.value:
        print(keep(path, Path(INTO.value)))
    if KEEP.value:
        return
    file = Path(FILE.value)
    if not file.is_file():
        raise UserError(f"--file={file} is not there")
    old = file.read_text(encoding="utf8")
    new = with_tables(old, file.parent)
    if old == new:
        print(f"{file} is as the kept runs say")
    elif CHECK.value:
        raise UserError(
            f"{file} is not as the kept runs say: run analysis.publish_results"
        )
    else:
        file.write_text(new, encoding="utf8")
        print(file)


if __name__ == "__main__":
    cli.run_main(main)
