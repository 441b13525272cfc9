"""How far a long loop has come, and how long it will take."""

import sys
import time


class Progress:
    """On a terminal a line that is written over; elsewhere, as in a log file, a line every ten seconds and a last one.

    Args:
        total: Steps to come; 0 where nobody knows.
        what: What a step is called, in the plural: 'pictures'.
    """

    def __init__(self, total: int, what: str):
        self.total = total
        self.what = what
        self.done = 0
        self.note = ''
        self.file = sys.stderr
        self.rewrites = self.file.isatty()
        self.interval = 0.1 if self.rewrites else 10.0
        self.start = self.printed = time.monotonic()

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *error) -> None:
        self._print(end='\n')

    def update(self, note: str = '') -> None:
        """Counts a step. What it has to tell, such as the disk space so far, is shown behind the number."""
        self.done += 1
        self.note = f', {note}' if note else ''
        if time.monotonic() - self.printed >= self.interval:
            self._print(end='' if self.rewrites else '\n')

    def _print(self, end: str) -> None:
        self.printed = time.monotonic()
        elapsed = self.printed - self.start
        rate = self.done / max(elapsed, 1e-6)
        text = f'{self.done}/{self.total or "?"} {self.what}{self.note}, {rate:.1f}/s, elapsed {_minutes(elapsed)}'
        if self.done and self.done < self.total:
            text += f', ETA {_minutes((self.total - self.done) / rate)}'
        # the escape sequence clears what a longer line left
        self.file.write(f'\r{text}\033[K{end}' if self.rewrites else f'{text}{end}')
        self.file.flush()


def _minutes(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f'{minutes}:{seconds:02d}'
