"""Live progress bar of a training run on a terminal, by rich."""

import atexit
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from training.metric_writers import PlainConsole

LINE = Column(no_wrap=True)


class ProgressBar(PlainConsole):
    """Bar with step, loss, throughput and time left; other lines go above it.

    It is drawn at each line of the log, without a thread, and stays as it is when the
    program ends.
    """

    def __init__(self, steps: int, step: int, unit: str = "tokens"):
        super().__init__(steps, step, unit)
        self.progress = Progress(
            BarColumn(bar_width=None),  # what the text leaves of the line
            TextColumn("{task.description}", markup=False, table_column=LINE),
            console=Console(file=sys.stdout, highlight=False),
            auto_refresh=False,
            expand=True,
        )
        self.task = self.progress.add_task("", total=steps, completed=step)

    def show(self, line: str, step: int, split: str) -> None:
        """Redraws the bar for a line of training, prints any other line above it."""
        if not self.progress.live.is_started:
            self.progress.start()
            atexit.register(self.progress.stop)  # shows the cursor again
        if split == "train":
            self.progress.update(self.task, completed=step, description=line)
            self.progress.refresh()
        else:
            self.progress.console.print(Text(line), soft_wrap=True)
