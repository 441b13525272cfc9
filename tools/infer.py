#!/usr/bin/env python
"""hg_plugin infer."""

from hg_plugin_cli import main

if __name__ == '__main__':
    main('infer')
