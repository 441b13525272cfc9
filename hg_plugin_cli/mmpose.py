"""Run MMPose's own tools with the configs and modules of this package.

hg_plugin mmpose train.py CONFIG --work-dir DIR
"""

from argparse import REMAINDER


def add_arguments(parser):
    parser.add_argument('script', help='train.py, test.py, misc/browse_dataset.py, ...')
    parser.add_argument('arguments', nargs=REMAINDER, help='its arguments')


def run(args):
    import runpy
    import sys
    from pathlib import Path

    import mmpose

    from hg_plugin.utils.errors import InputError

    script = Path(mmpose.__file__).parent / '.mim/tools' / args.script
    if not script.is_file():
        raise InputError(f'MMPose has no tools/{args.script}; try train.py, test.py, misc/browse_dataset.py.')
    sys.argv = [str(script), *args.arguments]
    runpy.run_path(str(script), run_name='__main__')
