#!/usr/bin/env python
"""hg_plugin make_crops."""

from hg_plugin_cli import main

if __name__ == '__main__':
    main('make_crops')
