"""Show trainings in one HTML file. Several are compared."""

import os


def add_arguments(parser):
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='folder of a training')
    out = 'default: report.html in WORK_DIR; for several, in this folder'
    parser.add_argument('--out', metavar='FILE.html', help=out)


def run(args):
    from hg_plugin.report.page import write_report

    print(f'The report: {os.path.abspath(write_report(args.work_dirs, args.out))}')
