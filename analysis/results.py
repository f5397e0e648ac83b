"""Figures that stay: runs kept in results/, and the tables of RESULTS.md made of them.

python -m analysis.results --keep=runs/rnn,runs/transformer --into=results/multi30k
python -m analysis.results                  writes the tables of RESULTS.md anew
python -m analysis.results --check          says whether they would change: exit code 2

A run that is kept is a run directory for `report.py`, without its checkpoints, without
text of the corpus, and without names of folders of the machine it was made on. In
RESULTS.md a table stands between the lines `<!-- results/NAME -->` and `<!-- end -->`.
"""

from pathlib import Path

from absl import flags

import cli
from errors import UserError

KEEP = flags.DEFINE_list("keep", [], "Run directories to keep.")
INTO = flags.DEFINE_string("into", None, "Where to: results/NAME.")
FILE = flags.DEFINE_string("file", "RESULTS.md", "The text with the tables.")
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
        raise UserError(f"{file} is not as the kept runs say: run analysis.results")
    else:
        file.write_text(new, encoding="utf8")
        print(file)


if __name__ == "__main__":
    cli.start(main)
