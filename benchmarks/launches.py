"""Operations that a training step launches, by part: what the host of a GPU pays for, whatever the batch.

    python benchmarks/launches.py --out benchmarks/launches.md

Two stacks of 8 channels train at 64x64 through MMEngine's runner with all hooks of the config, on a CPU.
Views and allocations launch nothing and are not counted. On a GPU, an operation on a list of tensors is one
or a few kernels.
"""

import argparse
import contextlib
import os.path as osp
import tempfile
from collections import Counter

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tables import write_tables
from torch.utils._python_dispatch import TorchDispatchMode

from hg_plugin.prepare.synthetic import make_synthetic
from hg_plugin.training.runner import QuietRunner, load_config

CONFIG = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'configs/hg_2stack_mpii.py')
PARTS = ('preprocessor', 'network', 'losses', 'backward', 'optimizer', 'hooks')
NOT_LAUNCHED = ('empty', 'empty_like', 'set_', '_record_function_enter_new', '_record_function_exit')


class Operations(TorchDispatchMode):
    """Counts launched operations by the part that launches them and their name."""

    def __init__(self):
        super().__init__()
        self.part, self.counts = 'hooks', Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition('.')[0]
        if not function.is_view and name not in NOT_LAUNCHED:
            self.counts[self.part, name] += 1
        return function(*args, **kwargs or {})

    @contextlib.contextmanager
    def of(self, part: str):
        """Counts for ``part`` meanwhile."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before


def watch_parts(model, optim_wrapper, context) -> None:
    """Lets the methods that are the parts of a training step run in ``context(part)``."""
    for part, owner, method in (
        ('network', model, 'train_step'),
        ('preprocessor', model.data_preprocessor, 'forward'),
        ('losses', model.head, 'loss'),
        ('losses', model, 'parse_losses'),
        ('backward', optim_wrapper, 'backward'),
        ('optimizer', optim_wrapper, 'step'),
    ):

        def run(*args, part=part, function=getattr(owner, method), **kwargs):
            with context(part):
                return function(*args, **kwargs)

        setattr(owner, method, run)


class CountHook(Hook):
    """Counts from before the third iteration to before the fourth; other processes load the data."""

    priority = 'HIGHEST'

    def __init__(self):
        self.operations = Operations()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if batch_idx == 2:
            watch_parts(runner.model, runner.optim_wrapper, self.operations.of)
            self.operations.__enter__()
        elif batch_idx == 3:
            self.operations.__exit__(None, None, None)


def count_operations(folder: str, **optim_wrapper) -> Counter:
    """Counts one training step.

    Args:
        folder: Empty, for the data and the run.
        **optim_wrapper: Settings of the config's.

    Returns:
        Operations by (part, name); parts are those of :data:`PARTS`.
    """
    make_synthetic(f'{folder}/data', num_train=8, num_val=1, seed=0, num_workers=1)
    options = {
        'input_size': (64, 64),
        'model.backbone.channels': 8,
        'model.backbone.depth': 4,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 1,
        'train_cfg.max_epochs': 1,
        'visualizer.name': osp.basename(folder),
        'log_level': 'WARNING',
        **{f'optim_wrapper.{key}': value for key, value in optim_wrapper.items()},
    }
    cfg = load_config(CONFIG, f'{folder}/run', f'{folder}/data', options)
    cfg.experiment_name = osp.basename(folder)  # of which a process makes no second one
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = QuietRunner.from_cfg(cfg)
    hook = CountHook()
    runner.register_hook(hook)
    runner.train()
    return hook.operations.counts


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', help='Markdown file for the table')
    args = parser.parse_args()
    rows = [('optim_wrapper', *PARTS, 'all')]
    for title, settings in (('bfloat16', dict(on_cpu=True)), ('float32', dict(dtype=None))):
        with tempfile.TemporaryDirectory() as folder:
            counts = count_operations(folder, **settings)
        numbers = [sum(n for (p, _), n in counts.items() if p == part) for part in PARTS]
        rows.append((title, *map(str, numbers), str(sum(numbers))))
    write_tables(args.out, f'Operations of one training step, two stacks, torch {torch.__version__}.', rows)


if __name__ == '__main__':
    main()
