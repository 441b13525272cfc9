"""The networks that train.py measures, and their batches."""

import argparse
import os.path as osp

import mmpose
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from mmpose.structures import PoseDataSample
from tables import make_miniature

from hg_plugin.utils.errors import InputError

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
STOCK = osp.join(
    osp.dirname(mmpose.__file__),
    '.mim/configs/body_2d_keypoint/topdown_heatmap/mpii/td-hm_hourglass52_8xb64-210e_mpii-256x256.py',
)
OURS = osp.join(ROOT, 'configs/hg_{}_mpii.py')
EAGER = dict(
    optim_wrapper=dict(dtype=None, optimizer=dict(fused=False)),
    model=dict(backbone=dict(channels_last=False)),
    env_cfg=dict(tf32=False, keep_memory=False),
)
COMPILED = dict(compile=dict())
WITH_CP = dict(model=dict(backbone=dict(with_cp=True)))
# name: title, config, changes, operations of an image and step in GFLOP (forward, and twice that backward)
NETWORKS = {
    'hourglass52': ("MMPose's hourglass52, its config", STOCK, {}, None),
    'hourglass52-amp': (
        "MMPose's hourglass52, --amp",
        STOCK,
        dict(optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic')),
        None,
    ),
}
for number, title, file, gmacs in (
    ('1', '1 stack', OURS.format('1stack'), 5.15),
    ('2', '2 stacks', OURS.format('2stack'), 8.33),
    ('8', '8 stacks', OURS.format('8stack'), 27.44),
    ('v1', '2 stacks of v1', OURS.format('2stack_concat'), 26.2),
):
    for kind, words, changes in (
        ('eager', "all of the config's switches off", EAGER),
        ('float32', 'in float32', dict(optim_wrapper=dict(dtype=None))),
        ('fast', 'config as it is', {}),
        ('given-back', 'freed memory given back', dict(env_cfg=dict(keep_memory=False))),
        ('cp', 'with_cp', WITH_CP),
        ('compiled', 'compiled', COMPILED),
        ('graphs', 'compiled with CUDA graphs', dict(compile=dict(mode='reduce-overhead'))),
    ):
        NETWORKS[f'{number}-{kind}'] = (f'{title}, {words}', file, changes, gmacs * 6)
DEFAULT = (
    'hourglass52',
    'hourglass52-amp',
    '1-fast',
    '2-eager',
    '2-fast',
    '2-given-back',
    '2-float32',
    '2-compiled',
    '2-cp',
    '8-fast',
    '8-compiled',
    '8-cp',
)


def synthetic_batch(cfg: Config, batch_size: int) -> dict:
    """Random images and keypoints, as the config's loader would hand them over."""
    width, height = cfg.codec.input_size
    images = torch.randint(0, 256, (batch_size, 3, height, width), dtype=torch.uint8)
    if cfg.model.data_preprocessor.type == 'HeatmapDataPreprocessor':
        return default_collate(
            [
                dict(
                    inputs=image,
                    data_samples=dict(keypoints=torch.rand(16, 2) * width, keypoints_visible=torch.ones(16)),
                )
                for image in images
            ]
        )
    samples = []
    for image in images:
        sample = PoseDataSample(
            gt_instance_labels=InstanceData(keypoint_weights=torch.ones(1, 16)),
            gt_fields=PixelData(heatmaps=torch.rand(16, height // 4, width // 4)),
        )
        samples.append(dict(inputs=image, data_samples=sample))
    return pseudo_collate(samples)


def network_config(name: str, miniature: bool = False) -> Config:
    """The config of one of :data:`NETWORKS`, with its changes."""
    _, config, changes, _ = NETWORKS[name]
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(changes)
    if miniature:
        make_miniature(cfg)
    return cfg


def batches_of(cfg: Config, args: argparse.Namespace, batch_size: int):
    """Endless batches: of the config's loader in ``args.data_root``, or else always the same random one, in
    pinned memory."""
    if args.data_root:
        loader = dict(
            cfg.train_dataloader,
            batch_size=batch_size,
            num_workers=args.workers,
            persistent_workers=args.workers > 0,
            drop_last=True,
        )
        loader['dataset'] = dict(loader['dataset'], data_root=args.data_root)
        loader = Runner.build_dataloader(loader, seed=0)
        if not len(loader):
            raise InputError(f'{args.data_root} has fewer than {batch_size} persons, which make no batch.')
        while True:
            yield from loader
    batch = synthetic_batch(cfg, batch_size)
    if torch.device(args.device).type == 'cuda' and torch.is_tensor(batch['inputs']):
        batch = dict(
            inputs=batch['inputs'].pin_memory(),
            data_samples={k: v.pin_memory() for k, v in batch['data_samples'].items()},
        )
    while True:
        yield batch
