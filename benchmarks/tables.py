"""What the benchmarks share: the device's name, and tables."""
import platform
import shlex
import sys
from collections.abc import Sequence

import torch


def device_name(device: str) -> str:
    """As the reader knows it: the GPU's name, or the CPU's with the number of threads; and torch's version."""
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        if sys.platform == 'linux':
            with open('/proc/cpuinfo') as file:
                facts = dict(map(str.strip, line.split(':', 1)) for line in file.read().split('\n\n')[0].splitlines())
            name = facts.get('model name', name)
            if 'cpu family' in facts:  # a cloud's CPUs are often called by their maker's name alone
                name += f' (family {facts["cpu family"]}, model {facts["model"]})'
    return f'{name}, torch {torch.__version__}'


def write_tables(path: str | None, heading: str, *tables: Sequence[Sequence[str]]) -> None:
    """Prints Markdown tables, whose first rows are their heads, and writes them to ``path``, with the command that made them."""
    parts = [f'`python {shlex.join(sys.argv)}`', heading]
    for head, *rows in tables:
        widths = [max(map(len, column)) for column in zip(head, *rows)]
        lines = [head, ['-' * width for width in widths], *rows]
        parts.append('\n'.join('| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |' for line in lines))
    text = '\n\n'.join(parts) + '\n'
    print(text)
    if path:
        with open(path, 'w') as file:
            file.write(text)
