"""How a user's mistake is reported: one sentence in an exception, and no traceback at a command line."""

import functools
import os
import sys
from pathlib import Path


class InputError(ValueError):
    """The user's input is wrong. The message is one sentence: what is wrong, where, and what to do."""


def command(main):
    """Decorates the ``main`` of a command line: an :class:`InputError` ends it with its sentence and exit code 1.

    Where torchrun has started several processes, one of them says it. Ctrl-C ends it with exit code 130.
    """

    @functools.wraps(main)
    def run(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except InputError as error:
            # from a data loader's worker it comes with the traceback over there, and the sentence last
            sentence = (
                str(error)
                .strip()
                .splitlines()[-1]
                .removeprefix(f'{InputError.__module__}.{InputError.__name__}: ')
            )
            sys.exit(f'error: {sentence}' if _first_to_fail() else 1)
        except KeyboardInterrupt:
            print('interrupted', file=sys.stderr)
            sys.exit(130)

    return run


def _first_to_fail() -> bool:
    """Whether no other process that torchrun has started on this machine has failed before."""
    if 'TORCHELASTIC_ERROR_FILE' not in os.environ:
        return True
    try:
        # torchrun has a folder for all, in it one for each process, and in that a place for this file
        Path(os.environ['TORCHELASTIC_ERROR_FILE']).parent.with_name('said').touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # better twice than never
        pass
    return True
