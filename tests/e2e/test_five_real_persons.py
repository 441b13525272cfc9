"""The full-width network learns five real MPII persons by heart: minutes on two cores."""

import re
import sys

import pytest

CONFIG = """
_base_ = ['{root}/configs/hg_2stack_mpii.py']
pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownCrop', input_size=(256, 256)),
    dict(type='PackKeypoints')
]
loader = dict(batch_size=5, num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, dataset=dict(pipeline=pipeline))
val_dataloader = loader
test_dataloader = val_dataloader
model = dict(backbone=dict(channels_last=True), test_cfg=dict(flip_test=False))
train_cfg = dict(max_epochs=150, val_interval=25)
param_scheduler = [dict(type='LinearLR', begin=0, end=10, start_factor=0.1, by_epoch=False)]
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=50))
log_processor = dict(window_size=5)
custom_hooks = []
optim_wrapper = dict(on_cpu=False)  # in float32, also where a CPU has bfloat16
randomness = dict(seed=0)
"""


@pytest.mark.slow
def test_it_knows_five_real_persons(real_data, launch, tmp_path, request):
    (tmp_path / 'config.py').write_text(CONFIG.format(root=request.config.rootpath))
    folders = '--data-root', real_data('mpii_sample'), '--work-dir', tmp_path
    result = launch(sys.executable, 'tools/train.py', tmp_path / 'config.py', *folders, timeout=3000)
    means = [float(mean) for mean in re.findall(r'Epoch\(val\).* Mean: ([\d.]+)', result.stdout)]
    losses = [float(loss) for loss in re.findall(r'Epoch\(train\).* loss: ([\d.]+)', result.stdout)]
    print(f'PCKh@0.5 Mean every 25 epochs: {means}; loss {losses[0]} to {losses[-1]}')
    assert means[-1] == 100 and losses[-1] < losses[0] / 100
