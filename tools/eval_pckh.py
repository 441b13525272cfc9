#!/usr/bin/env python
"""hg_plugin eval_pckh."""

from hg_plugin_cli import main

if __name__ == '__main__':
    main('eval_pckh')
