#!/usr/bin/env python
"""Show trainings in one HTML file: python tools/report.py WORK_DIR [WORK_DIR ...]. Several are compared."""

import argparse
import os

from hg_plugin.apis import write_report
from hg_plugin.utils.errors import command


@command
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='folder of a training')
    parser.add_argument(
        '--out', metavar='FILE.html', help='default: report.html in WORK_DIR; for several, in this folder'
    )
    args = parser.parse_args()
    print(f'The report: {os.path.abspath(write_report(args.work_dirs, args.out))}')


if __name__ == '__main__':
    main()
