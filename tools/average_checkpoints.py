#!/usr/bin/env python
"""hg_plugin average_checkpoints."""

from hg_plugin_cli import main

if __name__ == '__main__':
    main('average_checkpoints')
