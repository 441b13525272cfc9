"""What machine this is, and what the tests that need a GPU say of it.

    python benchmarks/machine.py --out machine.md
    python benchmarks/machine.py --tests "not slow" --keywords cpu     # their CPU variants

Every test's outcome is written as soon as it is known.
"""

import argparse
import importlib.util
import os
import os.path as osp
import re
import sys
from collections import Counter

import pytest
from tables import append_raw, tables_text, write_tables, write_whole

from hg_plugin.utils.environment import describe

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))


def files_of_gpu_tests() -> list:
    """The files that name the marker or the fixture of these tests; to collect all others takes longer than
    to run these."""
    files = []
    for folder, _, names in os.walk(osp.join(ROOT, 'tests')):
        for name in sorted(names):
            path = osp.join(folder, name)
            if name.startswith('test_') and name.endswith('.py'):
                with open(path) as file:
                    text = file.read()
                if 'pytest.mark.gpu' in text or re.search(r'def test_.*\bdevice\b', text):
                    files.append(path)
    return sorted(files)


class Outcomes:
    """A plugin of pytest that keeps (name, outcome, seconds, last lines) of every test in ``rows``, and calls
    ``report`` then."""

    def __init__(self, report):
        self.rows, self.report = [], report

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == 'call' or report.outcome != 'passed':
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longreprtext
            self.rows.append(
                (report.nodeid, report.outcome, report.duration, reason.strip().splitlines()[-3:])
            )
            self.report(*self.rows[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--tests', default='gpu', help='markers of the tests to run, as of pytest -m (default: %(default)s)'
    )
    parser.add_argument('--keywords', help='run only tests with these words in their names, as of pytest -k')
    parser.add_argument(
        '--processes',
        type=int,
        default=4,
        help='that run tests at a time, with pytest-xdist (default: %(default)s)',
    )
    parser.add_argument('--raw', help='file that every outcome is added to, a line of JSON each')
    parser.add_argument('--out', help='Markdown file for the tables')
    args = parser.parse_args()
    facts = describe()
    append_raw(args.raw, machine=facts)
    machine = [('', ''), *facts.items(), ('CPU cores', str(os.cpu_count()))]

    def content():
        counts = Counter(outcome for _, outcome, _, _ in outcomes.rows)
        rows = [('test', 'outcome', 's', 'reason')]
        rows += [
            (osp.basename(name), outcome, f'{seconds:.1f}', ' '.join(reason).replace('|', '/'))
            for name, outcome, seconds, reason in outcomes.rows
        ]
        return (
            ', '.join(f'{number} {outcome}' for outcome, number in counts.items()) or 'No test has ended.',
            machine,
            rows,
        )

    def report(name, outcome, seconds, reason):
        append_raw(args.raw, test=name, outcome=outcome, seconds=seconds, reason=reason)
        if args.out:
            write_whole(args.out, tables_text(*content()))

    outcomes = Outcomes(report)
    os.chdir(ROOT)
    options = ['-m', args.tests, *(['-k', args.keywords] if args.keywords else [])]
    if args.processes > 1 and importlib.util.find_spec('xdist'):
        options += ['-n', str(args.processes)]
    code = pytest.main(['-q', '-p', 'no:cacheprovider', *options, *files_of_gpu_tests()], plugins=[outcomes])
    write_tables(args.out, *content())
    sys.exit(code)


if __name__ == '__main__':
    main()
