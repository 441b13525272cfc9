#!/usr/bin/env python
"""Tests a checkpoint and prints its PCKh: python tools/test.py CONFIG CHECKPOINT [options], with MMPose's options."""

from argparse import ArgumentParser

from mmengine import dump

from hg_plugin.training.runner import add_common_options, test
from hg_plugin.utils.errors import command


@command
def main():
    parser = ArgumentParser(description='Test a pose model with a stock MMEngine runner.')
    add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--dump', help='write all predictions to this .pkl file')
    parser.add_argument('--out', help='write the figures to this .json, .yml or .pkl file')
    args = parser.parse_args()
    metrics = test(args)
    if args.out:
        dump(metrics, args.out)


if __name__ == '__main__':
    main()
