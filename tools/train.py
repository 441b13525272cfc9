#!/usr/bin/env python
"""Trains a model: python tools/train.py CONFIG [options], with MMPose's options."""

from argparse import ArgumentParser

from hg_plugin.training.runner import add_common_options, train
from hg_plugin.utils.errors import command


@command
def main():
    parser = ArgumentParser(description='Train a pose model with a stock MMEngine runner.')
    add_common_options(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or from the latest in the work directory',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--no-validate', action='store_true', help='do not validate while training')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate to this run's batch size"
    )
    train(parser.parse_args())


if __name__ == '__main__':
    main()
