"""The networks that are measured, ours and MMPose's, and batches for their training."""

import argparse
import os.path as osp
from importlib.util import find_spec

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner
from tables import make_miniature

from hg_plugin.utils.errors import InputError

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
# not by importing it, which needs hg_plugin's stand-in for xtcocotools first
BODY = osp.join(find_spec('mmpose').submodule_search_locations[0], '.mim/configs/body_2d_keypoint')
MPII = f'{BODY}/topdown_heatmap/mpii/td-hm_{{}}_8xb64-210e_mpii-256x256.py'
# what users of MMPose would pick: title and config
MMPOSE = {
    'hourglass52': ("MMPose's hourglass52", MPII.format('hourglass52')),
    'rtmpose-s': ("MMPose's RTMPose-s", f'{BODY}/rtmpose/coco/rtmpose-s_8xb256-420e_coco-256x192.py'),
    'hrnet-w32': ("MMPose's HRNet-w32", MPII.format('hrnet-w32')),
    'res50': ("MMPose's SimpleBaselines-R50", MPII.format('res50')),
}
OURS = osp.join(ROOT, 'configs/hg_{}_mpii.py')
EAGER = dict(
    optim_wrapper=dict(dtype=None, optimizer=dict(fused=False)),
    model=dict(backbone=dict(channels_last=False)),
    env_cfg=dict(tf32=False, keep_memory=False),
)
COMPILED = dict(compile=dict())
WITH_CP = dict(model=dict(backbone=dict(with_cp=True)))
# name: title, config, changes, operations of an image and step in GFLOP (forward, and twice that backward)
NETWORKS = {name: (f'{title}, its config', None, {}, None) for name, (title, _) in MMPOSE.items()}
NETWORKS['hourglass52-amp'] = (
    "MMPose's hourglass52, --amp",
    None,
    dict(optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic')),
    None,
)
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
    target = TRANSFORMS.build(dict(type='GenerateTarget', encoder=cfg.codec))
    pack = TRANSFORMS.build(dict(type='PackPoseInputs', meta_keys=()))
    keypoints = cfg.model.head.out_channels
    samples = []
    for image in images:
        sample = dict(
            img=image.permute(1, 2, 0).numpy(),
            keypoints=np.random.rand(1, keypoints, 2).astype(np.float32) * width,
            keypoints_visible=np.ones((1, keypoints), np.float32),
            dataset_keypoint_weights=np.ones(keypoints, np.float32),
        )
        samples.append(pack(target(sample)))
    return pseudo_collate(samples)


def mmpose_config(name: str) -> Config:
    """The config of one of :data:`MMPOSE`, for one process and without MMDetection and pretrained weights."""

    def adapt(part):
        if isinstance(part, dict):
            for key in ('_scope_', 'init_cfg'):
                part.pop(key, None)
            if part.get('type') == 'SyncBN':
                part['type'] = 'BN'
        for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            adapt(value)

    cfg = Config.fromfile(MMPOSE[name][1])
    adapt(cfg.model)
    return cfg


def network_config(name: str, miniature: bool = False) -> Config:
    """The config of one of :data:`NETWORKS`, with its changes."""
    _, config, changes, _ = NETWORKS[name]
    cfg = Config.fromfile(config) if config else mmpose_config(name.removesuffix('-amp'))
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
