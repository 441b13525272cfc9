"""Show how far a long loop has come and how long it will take."""

import sys
import time
from datetime import timedelta


class Progress:
    """Rewrite a line on a terminal; elsewhere, as in a log file, print one every ten seconds and a last one.

    Args:
        total: Number of steps; 0 if it is not known.
        what: What the steps are called, in the plural: 'images'.
    """

    def __init__(self, total: int, what: str):
        self.total, self.what, self.done, self.note = total, what, 0, ''
        self.rewrites = sys.stderr.isatty()
        self.interval = 0.1 if self.rewrites else 10.0  # seconds
        self.start = self.printed = time.monotonic()

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *error) -> None:
        self._print(end='\n')

    def update(self, note: str = '') -> None:
        """Count a step. A ``note``, such as the disk space used so far, is shown behind the count."""
        self.done += 1
        self.note = f', {note}' if note else ''
        if time.monotonic() - self.printed >= self.interval:
            self._print(end='' if self.rewrites else '\n')

    def _print(self, end: str) -> None:
        self.printed = time.monotonic()
        elapsed = self.printed - self.start
        rate = self.done / max(elapsed, 1e-6)
        text = f'{self.done}/{self.total or "?"} {self.what}{self.note}, {rate:.1f}/s'
        text += f', elapsed {timedelta(seconds=round(elapsed))}'
        if 0 < self.done < self.total:
            text += f', ETA {timedelta(seconds=round((self.total - self.done) / rate))}'
        # the escape sequence clears what a longer line left
        print(f'\r{text}\033[K' if self.rewrites else text, end=end, file=sys.stderr, flush=True)
