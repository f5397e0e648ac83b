"""Figures that stay: runs kept in results/, and the tables of RESULTS.md made of them.

python -m analysis.results --keep=runs/rnn,runs/transformer --into=results/multi30k
python -m analysis.results                  writes the tables of RESULTS.md anew
python -m analysis.results --check          says whether they would change: exit code 2

A run that is kept is a run directory for `report.py`, without its checkpoints, without
text of the corpus, and without names of folders of the machine it was made on. In
RESULTS.md a table stands between the lines `<!-- results/NAME -->` and `<!-- end -->`.
"""

import json
import re
import shutil
from pathlib import Path

from absl import flags

import cli
from analysis.report_content import Content
from analysis.report_markdown import section, table
from analysis.report_tables import curve_rows, seed_rows
from errors import UserError
from training.run_directory import RunDirectory

KEEP = flags.DEFINE_list("keep", [], "Run directories to keep.")
INTO = flags.DEFINE_string("into", None, "Where to: results/NAME.")
FILE = flags.DEFINE_string("file", "RESULTS.md", "The text with the tables.")
CHECK = flags.DEFINE_bool("check", False, "Write nothing; exit code 2 for a change.")

KEPT = ("about.json", "metrics.jsonl", "eval/*.json", "eval/*.npz")
HYPOTHESES = "samples/*.hypotheses.txt"
PLACES = ("dir", "source_dir", "cache_dir", "vocabulary")  # of cfg.data
MARKED = re.compile(r"(<!-- (results/[\w./-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Keeps runs, or makes the tables."""
    if bool(KEEP.value) != bool(INTO.value):
        raise UserError("--keep=DIR1,DIR2 and --into=results/NAME go together")
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


def keep(path: str, folder: Path) -> Path:
    """Copies what figures need of a run; returns where to.

    Raises UserError for what is no run directory with a score card.
    """
    run = RunDirectory(path)
    if not run.exists or not list(run.path.glob("eval/*.json")):
        raise UserError(f"{path} is not a run directory with a score card")
    kept = folder / run.path.resolve().name
    if kept.exists():
        shutil.rmtree(kept)
    files = [file for pattern in (*KEPT, HYPOTHESES) for file in run.path.glob(pattern)]
    for file in files:
        copy = kept / file.relative_to(run.path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    config = run.read_json("config.json")
    for key in PLACES:
        config["data"][key] = None
    (kept / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return kept


def with_tables(text: str, root: Path) -> str:
    """A text with its tables made anew. Raises UserError where there are none."""
    if not MARKED.search(text):
        raise UserError("there is no <!-- results/NAME --> with an <!-- end --> after")
    return MARKED.sub(
        lambda found: f"{found[1]}\n{tables(root / found[2])}\n\n{found[3]}", text
    )


def tables(folder: Path) -> str:
    """Scores, costs, origins and curves of the runs kept in a folder."""
    paths = sorted(str(path) for path in folder.glob("*") if path.is_dir())
    if not paths:
        raise UserError(f"{folder} holds no runs")
    content = Content.of(paths, is_tested=False)
    parts = [
        *(f"**Warning:** {text}." for text in content.warnings()),
        table([{"model": row.label, **row.cells} for row in content.scores]),
        table([{"model": row.label, **row.cells} for row in content.costs]),
        section("Seeds", seed_rows(content.systems) if content.has_seeds else []),
        table([without_place(row) for row in content.origins]),
        table([row for run in content.runs for row in curve_rows(run)]),
    ]
    return "\n\n".join(part for part in parts if part)


def without_place(row: dict[str, str]) -> dict[str, str]:
    """Where a run comes from, but for its folder here."""
    return {title: text for title, text in row.items() if title != "directory"}


if __name__ == "__main__":
    cli.start(main)
