"""A fair race: every network gets the same persons, crops, input of 128x128 and minutes, and is scored alike.

    python projects/learning/race.py --minutes 20 --out DIR
    python projects/learning/race.py --minutes 60 --only ours-2x128 hourglass52-stock --out DIR

Minutes are of CPU time, so that other work on the machine costs nobody anything, or of the clock on a GPU.
Networks train from random weights; learning rates fall to the end of the minutes. After an interruption, give
the same command again: results in DIR are kept, and a training resumes where it was saved, every ten minutes.
"""

import math
import time

import torch
from experiment import BASE, parse_args, run
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.registry import HOOKS

from hg_plugin.engine.resume.checkpoint import SafeCheckpointHook
from hg_plugin.training.runner import load_config

SQUARES = dict(type='KeypointMSELoss', use_target_weight=True)
CROSS_ENTROPY = dict(type='SpatialCrossEntropyLoss')


def ours(stacks: int, channels: int, stage_weights: list[float] | None = None, **backbone) -> dict:
    return dict(
        backbone=dict(type='StackedHourglass', num_stacks=stacks, channels=channels, **backbone),
        head=dict(type='MultiStageHeatmapHead', stage_weights=stage_weights),
    )


HOURGLASS52 = dict(
    backbone=dict(type='HourglassNet', num_stacks=1),
    head=dict(type='MultiStageHeatmapHead', in_channels=256),
)
# MMPose's HeatmapHead has the same layers
RESNET18 = dict(
    backbone=dict(type='ResNet', depth=18),
    head=dict(
        type='MultiStageHeatmapHead',
        in_channels=512,
        num_stages=1,
        deconv_out_channels=(256, 256, 256),
        deconv_kernel_sizes=(4, 4, 4),
    ),
)


def hrnet() -> dict:
    backbone = mmpose('topdown_heatmap/mpii/td-hm_hrnet-w32_8xb64-210e_mpii-256x256').backbone
    return dict(backbone=backbone, head=dict(type='MultiStageHeatmapHead', in_channels=32, num_stages=1))


def rtmpose() -> dict:
    """RTMPose-s at 128x128, with its head and loss; sigma is that of 256x256 times the root of a half."""
    model = mmpose('rtmpose/coco/rtmpose-s_8xb256-420e_coco-256x192')
    codec = dict(model.head.decoder, input_size=(128, 128), sigma=(4.0, 4.0))
    head = dict(model.head, out_channels=16, input_size=(128, 128), in_featuremap_size=(4, 4), decoder=codec)
    backbone = dict(model.backbone, _scope_='mmpose')  # of MMDetection, which is not needed
    return dict(data_preprocessor=model.data_preprocessor, backbone=backbone, head=head)


def mmpose(name: str) -> dict:
    """The model of one of MMPose's configs, without pretrained weights."""
    model = get_config(f'mmpose::body_2d_keypoint/{name}.py').model
    del model.backbone['init_cfg']
    return model


V1 = dict(
    num_blocks=(3, 1),
    stem_channels=(32, 64, 64, 64, 128),
    out_channels=256,
    residual='postact',
    join='concat',
)
# name: what it is, model, recipe
CONTESTANTS = {
    'hourglass52-stock': ("MMPose's hourglass52, its recipe", HOURGLASS52, 'stock'),
    'ours-2x128': ('2 stacks of 128 channels', ours(2, 128), 'ours'),
    'hourglass52-ours': ("MMPose's hourglass52, our recipe", HOURGLASS52, 'ours'),
    'resnet18-stock': ("MMPose's SimpleBaselines, ResNet-18, its recipe", RESNET18, 'stock'),
    'resnet18-ours': ("MMPose's SimpleBaselines, ResNet-18, our recipe", RESNET18, 'ours'),
    'hrnet-w32-stock': ("MMPose's HRNet-w32, its recipe", hrnet(), 'stock'),
    'hrnet-w32-ours': ("MMPose's HRNet-w32, our recipe", hrnet(), 'ours'),
    'rtmpose-s-stock': ("MMPose's RTMPose-s, its recipe", rtmpose(), 'rtmpose'),
    'rtmpose-s-ours': ("MMPose's RTMPose-s with its loss, our optimizer and schedule", rtmpose(), 'ours'),
    'ours-1x128': ('1 stack of 128 channels', ours(1, 128), 'ours'),
    'ours-2x64': ('2 stacks of 64 channels', ours(2, 64), 'ours'),
    'ours-4x64': ('4 stacks of 64 channels', ours(4, 64), 'ours'),
    'ours-1x256': ('1 stack of 256 channels', ours(1, 256), 'ours'),
    'ours-v1': (
        '2 stacks of v1, 128 channels',
        ours(2, 128, **V1),
        'ours',
    ),
    # the paper's ablations
    'last-loss': ('2 stacks of 128 channels, a loss on the last alone', ours(2, 128, [0.0, 1.0]), 'ours'),
    'one-long': ('1 stack of 128 channels, two residuals in a row', ours(1, 128, num_blocks=2), 'ours'),
    'features-only': ('2 stacks of 128 channels, heatmaps not fed back', ours(2, 128), 'ours'),
}


SAVE_EVERY = 600  # seconds


@HOOKS.register_module(force=True)
class ScheduleByTime(Hook):
    """Learning rate by the share of the time that is over, and the end of the training.

    Args:
        seconds: Of this process's CPU time, or of the clock where there is a GPU.
        recipe: 'stock': that of MMPose's hourglass, 500 steps of warm-up, a tenth after 170 and 200 of 210
            parts. 'rtmpose': 1,000 steps of warm-up, and from the middle on a cosine to a twentieth.
            'ours': one cycle.
    """

    def __init__(self, seconds: float, recipe: str):
        self.seconds, self.recipe = seconds, recipe
        self.clock = time.perf_counter if torch.cuda.is_available() else time.process_time

    def before_train(self, runner) -> None:
        self.hub, self.steps = runner.message_hub, runner.iter
        self.saved = self.hub.get_info('seconds', 0.0)  # a checkpoint has it
        self.begin = self.clock() - self.saved
        self.peaks = self.hub.get_info('peaks') or [
            group['lr'] for group in runner.optim_wrapper.param_groups
        ]
        self.hub.update_info('peaks', self.peaks)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        share = min(1.0, (self.clock() - self.begin) / self.seconds)
        if self.recipe == 'stock':
            factor = min(1.0, (self.steps + 1) / 500) * 0.1 ** ((share > 170 / 210) + (share > 200 / 210))
        elif self.recipe == 'rtmpose':
            falling = max(0.0, share - 0.5) / 0.5
            factor = min(1.0, (self.steps + 1) / 1000) * (0.525 + 0.475 * math.cos(math.pi * falling))
        else:
            falling = max(0.0, share - 0.05) / 0.95
            factor = min(share / 0.05, (1 + math.cos(math.pi * falling)) / 2)
        for group, peak in zip(runner.optim_wrapper.param_groups, self.peaks):
            group['lr'] = peak * factor

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.steps += 1
        seconds = self.clock() - self.begin
        self.hub.update_info('seconds', seconds)
        runner.train_loop.stop_training = seconds > self.seconds
        if seconds > self.saved + SAVE_EVERY:
            self.saved = seconds
            saver = next(hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))
            saver.save(runner, 'saved.pth', dict(epoch=runner.epoch, iter=runner.iter + 1))


@HOOKS.register_module(force=True)
class FeaturesOnly(Hook):
    """Feeds no heatmaps back, as MMPose's HourglassNet does."""

    def before_train(self, runner) -> None:
        for join in runner.model.backbone.joins:
            for parameter in join.from_heatmaps.parameters():
                parameter.requires_grad_(False).zero_()


# optimizer, loss and images a step; 'stock' is that of MMPose's hourglass, ResNet and HRNet configs
RECIPES = dict(
    stock=(dict(optimizer=dict(type='Adam', lr=5e-4)), SQUARES, 64),
    rtmpose=(
        dict(
            optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05),
            paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, bypass_duplicate=True),
        ),
        None,
        64,
    ),
    ours=(dict(optimizer=dict(type='MuonWithAuxAdam', lr=2e-3, muon_lr=0.04)), CROSS_ENTROPY, 16),
)
TITLES = {name: title for name, (title, _, _) in CONTESTANTS.items()}


def main():
    args = parse_args(__doc__, TITLES, 'minutes', 20.0)

    def config(name: str, work_dir: str) -> Config:
        _, model, recipe = CONTESTANTS[name]
        cfg = load_config(BASE, work_dir=work_dir, data_root=args.data_root)
        optimizer, loss, batch_size = RECIPES[recipe]
        of_this_package = model['head']['type'] == 'MultiStageHeatmapHead'
        if of_this_package:
            cfg.model = {
                **cfg.model.to_dict(),
                **model,
                'head': dict(model['head'], out_channels=16, loss=loss),
            }
        else:
            cfg.model = {'type': cfg.model.type, 'test_cfg': dict(flip_test=True), **model}
            cfg.train_dataloader.dataset.pipeline[2:] = [
                dict(type='GenerateTarget', encoder=model['head']['decoder']),
                dict(type='PackPoseInputs'),
            ]
        cfg.train_dataloader.batch_size = batch_size
        workers = 8 if torch.cuda.is_available() else 0  # CPU time is that of one process
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(num_workers=workers, persistent_workers=False)
        never = 10**9
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=never, val_interval=never, val_begin=never)
        cfg.param_scheduler = None
        # RTMPose's head cannot train in bfloat16
        autocast = recipe == 'ours' and of_this_package
        cfg.optim_wrapper = dict(type='AutocastOptimWrapper' if autocast else 'OptimWrapper', **optimizer)
        cfg.default_hooks.checkpoint.update(interval=-1, save_best=None, save_last=False)
        cfg.custom_hooks = [dict(type='ScheduleByTime', seconds=60 * args.budget, recipe=recipe)]
        if name == 'features-only':
            cfg.custom_hooks.append(dict(type='FeaturesOnly'))
        cfg.randomness = dict(seed=args.seed)
        return cfg

    run(TITLES, args, config)


if __name__ == '__main__':
    main()
