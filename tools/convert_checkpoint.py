#!/usr/bin/env python
"""hg_plugin convert_checkpoint."""

from hg_plugin_cli import main

if __name__ == '__main__':
    main('convert_checkpoint')
