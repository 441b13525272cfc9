#!/usr/bin/env python
"""hg_plugin check."""

from hg_plugin_cli import main

if __name__ == '__main__':
    main('check')
