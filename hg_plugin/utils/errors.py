"""Report a user's mistake: one sentence in an exception, and no traceback at a command line."""

import contextlib
import functools
import importlib.util
import sys
import traceback
from types import TracebackType


class InputError(ValueError):
    """The user's input is wrong. The message is one sentence: what is wrong, where, and what to do."""


def need_packages(what: str, *packages: str) -> None:
    """Raise an :class:`InputError` that says how to install the packages that are missing."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(f'{what} needs missing packages; run: pip install {" ".join(missing)}')


class TrainingDiverged(SystemExit):
    """A training has diverged. As a ``SystemExit`` it ends any tool, also MMPose's, with a code of its own.

    Args:
        message: Why, which is logged before; Python prints nothing for an exit code.
    """

    EXIT_CODE = 86

    def __init__(self, message: str):
        super().__init__(self.EXIT_CODE)
        self.message = message

    def __str__(self) -> str:
        return self.message


# whose frames in a traceback tell a mistake in settings
KNOWN = {
    *sys.stdlib_module_names,
    *('hg_plugin', 'mmengine', 'mmpose', 'mmcv', 'mmdet', 'torch', 'torchvision', 'numpy', 'xtcocotools'),
}


def in_own_code(trace: TracebackType | None) -> bool:
    """Whether a traceback passes through code of the user's own, such as a backbone or a dataset."""
    modules = [frame.f_globals.get('__name__') for frame, _ in traceback.walk_tb(trace)]
    # MMEngine runs a config without a name
    return any(module and module.partition('.')[0] not in KNOWN for module in modules)


def command(main):
    """Decorate the ``main`` of a command line: an :class:`InputError` ends it with its message and code 1.

    Ctrl-C ends it with code 130.
    """

    @functools.wraps(main)
    def run(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except InputError as error:
            # a data loader's worker puts its traceback before the message
            kind = type(error)
            message = str(error).rpartition(f'{kind.__module__}.{kind.__qualname__}: ')[2]
            with contextlib.suppress(AttributeError):  # a notebook's
                # the line at once, also under python -u: processes of torchrun end together
                sys.stderr.reconfigure(line_buffering=True, write_through=False)
            sys.exit(f'error: {" ".join(message.split())}')
        except (KeyboardInterrupt, SyntaxError) as error:
            # MMEngine turns Ctrl-C into a SyntaxError while it formats a config
            if isinstance(error, SyntaxError) and not isinstance(error.__context__, KeyboardInterrupt):
                raise
            print('interrupted', file=sys.stderr)
            sys.exit(130)

    return run
