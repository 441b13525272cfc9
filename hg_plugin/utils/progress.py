"""Show how far a long loop has come and how long it will take."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A bar on a terminal; elsewhere, as in a log file, a line every ten seconds and a last one.

    Args:
        total: Number of steps; 0 if it is not known.
        what: What the steps are called, in the plural: 'images'.
    """

    def __init__(self, total: int, what: str):
        text = TextColumn('{task.description}', markup=False)
        columns = MofNCompleteColumn(), text, TimeElapsedColumn(), TimeRemainingColumn(), BarColumn()
        # no thread that refreshes: data loaders fork meanwhile
        self.bar = Bar(*columns, console=Console(stderr=True), auto_refresh=False)
        self.what, self.task = what, self.bar.add_task(what, total=total or None)
        self.interval = 0.1 if self.bar.console.is_terminal else 10.0  # seconds
        self.shown = time.monotonic()

    def __enter__(self) -> 'Progress':
        self.bar.start()
        return self

    def __exit__(self, *error) -> None:
        self.bar.stop()

    def update(self, note: str = '') -> None:
        """Count a step. A ``note``, such as the disk space used so far, is shown behind the count."""
        self.bar.update(self.task, advance=1, description=', '.join(filter(None, (self.what, note))))
        if time.monotonic() - self.shown >= self.interval:
            self.shown = time.monotonic()
            if self.bar.console.is_terminal:
                self.bar.refresh()
            else:
                self.bar.console.print(self.bar.get_renderable())
