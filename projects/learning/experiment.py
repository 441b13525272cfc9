"""What the experiments share: trainings by name, each in a process of its own, and a table of them."""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from hg_plugin.utils.environment import device_name

BASE = str(Path(__file__).parent / 'lspet_cpu.py')


def parse_args(doc: str, titles: dict[str, str], budget: str, default: float) -> argparse.Namespace:
    """Parses the command line.

    Args:
        doc: What the experiment is.
        titles: {name of a training: what it is}.
        budget: What every training gets of it: the name of an option, such as 'minutes'.
        default: How much.

    Returns:
        ``only``, ``budget``, ``data_root``, ``seed`` and ``out``; ``one``, the training of this process.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=titles, default=list(titles), metavar='NAME')
    parser.add_argument(
        f'--{budget}',
        type=type(default),
        default=default,
        dest='budget',
        help='of each training (default: %(default)s)',
    )
    parser.add_argument('--data-root', help='folder of the dataset, instead of data/lspet_mpii')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder of the results')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    return parser.parse_args()


def run(titles: dict[str, str], args: argparse.Namespace, config: Callable[[str, str], Config]) -> None:
    """Runs what has no result in DIR/results.jsonl yet, and writes DIR/results.md after each training.

    Args:
        titles: {name of a training: what it is}.
        args: Of :func:`parse_args`.
        config: Makes the config of a name and a work directory.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    if args.one:
        return train_and_score(args, config)
    for number, name in enumerate(args.only, 1):
        print(f'{number} of {len(args.only)}: {titles[name]} ...', flush=True)
        if not any((row['name'], row['seed']) == (name, args.seed) for row in results(args)):
            with open(args.out / f'{name}.log', 'a') as log:
                command = [sys.executable, *sys.argv, '--one', name]
                code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
            if code:
                print(f'  failed; see {log.name}', flush=True)
                continue
        text = table(results(args), titles)
        (args.out / 'results.md').write_text(f'`python {" ".join(sys.argv)}`\n\n{text}')
    print(table(results(args), titles))


def train_and_score(args: argparse.Namespace, config: Callable[[str, str], Config]) -> None:
    """Trains in this process with one thread, scores, and adds a line to DIR/results.jsonl."""
    torch.set_num_threads(1)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    folder = args.out / f'{args.one}_{args.seed}'
    cfg = config(args.one, str(folder))
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    runner.train()
    steps, loader = runner.iter, runner.train_dataloader
    result = dict(
        name=args.one,
        budget=args.budget,
        seed=args.seed,
        parameters=sum(parameter.numel() for parameter in runner.model.parameters()),
        steps=steps,
        epochs=steps * loader.batch_size / len(loader.dataset),
        minutes=runner.message_hub.get_info('seconds', time.process_time()) / 60,
        device=f'{device_name(device)}, torch {torch.__version__}',
        metrics=runner.val_loop.run(),
    )
    with open(args.out / 'results.jsonl', 'a') as file:
        file.write(json.dumps(result) + '\n')
    shutil.rmtree(folder)


def results(args: argparse.Namespace) -> list[dict]:
    """The results with this budget, the best first."""
    path = args.out / 'results.jsonl'
    rows = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    rows = [row for row in rows if row['budget'] == args.budget]
    return sorted(rows, key=lambda row: -row['metrics']['Mean'])


def table(rows: list[dict], titles: dict[str, str]) -> str:
    """A Markdown table. PCKh is on the validation persons, with the flip test."""
    head = 'name', 'what', 'seed', 'parameters', 'steps', 'epochs', 'CPU minutes', 'stages', 'PCKh@0.5 Mean'
    lines = [head, ['---'] * len(head)]
    for row in rows:
        metrics = row['metrics']
        lines.append(
            (
                row['name'],
                titles[row['name']],
                str(row['seed']),
                f'{row["parameters"]:,}',
                f'{row["steps"]:,}',
                f'{row["epochs"]:.1f}',
                f'{row["minutes"]:.1f}',
                ' '.join(f'{value:.1f}' for key, value in metrics.items() if key.endswith('/Mean')),
                f'{metrics["Mean"]:.1f}',
            )
        )
    text = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return f'{text}\n\n{rows[0]["device"] if rows else "No result"}.\n'
