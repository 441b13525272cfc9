#!/usr/bin/env python
"""Tests a checkpoint and prints its PCKh: python tools/test.py CONFIG CHECKPOINT [options], with MMPose's options."""
from argparse import ArgumentParser

from hg_plugin.apis.launch import add_common_options, test_runner
from hg_plugin.errors import command


@command
def main():
    parser = ArgumentParser(description='Test a pose model with a stock MMEngine runner.')
    add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--dump', help='write all predictions to this .pkl file')
    test_runner(parser.parse_args()).test()


if __name__ == '__main__':
    main()
