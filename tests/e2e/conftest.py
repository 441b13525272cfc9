import re
import sys

import pytest


@pytest.fixture(scope='session')
def persons(synthetic):
    return synthetic(16, 4)


@pytest.fixture
def train(persons, tmp_path, launch, request):
    """Runs a training of a few channels on ``persons``, with ``processes`` of torchrun or without it; returns
    {(epoch, step): loss}, and all that it printed."""

    def train(name, settings, *options, processes=0, env={}):
        base = f"_base_ = ['{request.config.rootpath}/configs/hg_2stack_synthetic.py']\n"
        (tmp_path / f'{name}.py').write_text(base + SMALL + settings)
        command = [sys.executable, 'tools/train.py'] if processes == 0 else ['bash', 'tools/dist_train.sh']
        arguments = [tmp_path / f'{name}.py', *([processes] if processes else [])]
        folders = ['--data-root', persons, '--work-dir', tmp_path / name]
        out = launch(*command, *arguments, *folders, *options, **env).stdout
        found = re.findall(r'Epoch\(train\) +\[(\d+)\]\[(\d)/\d\].* loss: ([\d.]+)', out)
        return {(int(epoch), int(step)): float(loss) for epoch, step, loss in found}, out

    return train


SMALL = """
model = dict(backbone=dict(channels=8, depth=1))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=-1))
log_processor = dict(window_size=1)
"""
