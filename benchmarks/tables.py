"""What the benchmarks share: the device's name, tables, raw figures, and networks small enough to try a
command with."""

import json
import os
import platform
import shlex
import sys
import textwrap
from collections.abc import Sequence

import torch
from mmengine.config import Config

# for tables of networks that make_miniature has made
MINIATURE = ' **Networks of a few channels: a try of the command, not a measurement.**'


def device_name(device: str) -> str:
    """As the reader knows it: the GPU's name, or the CPU's with the number of threads; and torch's
    version."""
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        if sys.platform == 'linux':
            with open('/proc/cpuinfo') as file:
                facts = dict(
                    map(str.strip, line.split(':', 1)) for line in file.read().split('\n\n')[0].splitlines()
                )
            name = facts.get('model name', name)
            if 'cpu family' in facts:  # a cloud's CPUs are often called by their maker's name alone
                name += f' (family {facts["cpu family"]}, model {facts["model"]})'
    return f'{name}, torch {torch.__version__}'


def tables_text(heading: str, *tables: Sequence[Sequence[str]]) -> str:
    """Markdown tables, whose first rows are their heads, under the command that made them."""
    parts = [f'```\npython {shlex.join(sys.argv)}\n```', textwrap.fill(heading, 110, break_on_hyphens=False)]
    for head, *rows in tables:
        lines = [head, ['---'] * len(head), *rows]
        parts.append('\n'.join(f'| {" | ".join(line)} |' for line in lines))
    return '\n\n'.join(parts) + '\n'


def write_tables(path: str | None, heading: str, *tables: Sequence[Sequence[str]]) -> None:
    """Prints the tables of :func:`tables_text`, and writes them to ``path``."""
    text = tables_text(heading, *tables)
    print(text, flush=True)
    if path:
        write_whole(path, text)


def write_whole(path: str, text: str) -> None:
    """Writes a file that is the old or the new one whenever the process is killed."""
    with open(f'{path}.part', 'w') as file:
        file.write(text)
    os.replace(f'{path}.part', path)


def append_raw(path: str | None, **figures) -> None:
    """Adds a line of JSON to the file ``path``, at once, so that a killed process has lost nothing that it
    measured."""
    if path:
        with open(path, 'a') as file:
            file.write(json.dumps(figures) + '\n')


def make_miniature(cfg: Config) -> None:
    """Leaves a config's network a few channels and levels: for a try of a whole command on a CPU, whose
    figures mean nothing."""
    if cfg.model.backbone.type == 'HourglassNet':
        cfg.model.backbone.update(downsample_times=1, stage_channels=(256, 16), stage_blocks=(1, 1))
    elif cfg.model.backbone.get('join') == 'concat':
        cfg.model.backbone.update(channels=8, depth=1, stem_channels=(4, 8, 8), out_channels=16)
    elif cfg.model.backbone.type == 'StackedHourglass':
        cfg.model.backbone.update(channels=8, depth=1)
    if cfg.get('compile') is not None:
        cfg.compile = dict(backend='aot_eager')  # traces as inductor does, and needs no compiler
