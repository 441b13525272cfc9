"""How a user's mistake is reported: one sentence in an exception, and no traceback at a command line."""
import functools
import sys


class InputError(ValueError):
    """The user's input is wrong. The message is one sentence: what is wrong, where, and what to do."""


def command(main):
    """Decorates the ``main`` of a command line: an :class:`InputError` ends it with its sentence and exit code 1."""

    @functools.wraps(main)
    def run(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except InputError as error:
            # from a data loader's worker it comes with the traceback over there, and the sentence last
            sentence = str(error).strip().splitlines()[-1].removeprefix(f'{InputError.__module__}.{InputError.__name__}: ')
            sys.exit(f'error: {sentence}')

    return run
