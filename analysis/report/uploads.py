"""Uploads of a report to the trackers of its runs."""

from collections.abc import Sequence
from pathlib import Path

from analysis.report.content import Content
from training.run_dir import RunDirectory
from training.trackers.registry import upload_results


def upload_report(content: Content, files: Sequence[Path]) -> None:
    """Uploads the files of a report to the remote run of each run that is tracked."""
    for run in content.runs:
        upload_results(RunDirectory(run.path), files)
