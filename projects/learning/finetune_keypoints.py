"""Fine-tune the network of the package for other keypoints: 7 of 300 persons, two of them in no dataset.

    python projects/learning/finetune_keypoints.py --data-root data/lspet_mpii --out DIR

The annotations are made of LSP extended's: the chest is the middle of the shoulders, the seat of the hips.
Trains from the network's weights and from nothing, and writes DIR/finetune_keypoints.md, a curve of PCKh.
"""

import argparse
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.logging import MessageHub

from hg_plugin.apis import train
from hg_plugin.mpii_format import (
    JOINTS,
    load_annotations,
    load_head_boxes,
    save_annotations,
    save_ground_truth,
)
from hg_plugin.training.runner import load_config

ROOT = Path(__file__).parents[2]
WEIGHTS = str(ROOT / 'hg_plugin/weights/hg_2stack_lspet_128.pth')
# name: the joints of MPII in whose middle it lies
KEYPOINTS = dict(
    crown=('head',),
    chest=('rsho', 'lsho'),
    seat=('rhip', 'lhip'),
    right_hand=('rwri',),
    left_hand=('lwri',),
    right_foot=('rank',),
    left_foot=('lank',),
)
PERSONS = dict(train=300, val=200)


def write_annotations(data_root: Path, out: Path) -> None:
    """Writes the first persons of both splits, with the other keypoints, to ``out``."""
    members = [[JOINTS.index(joint) for joint in joints] for joints in KEYPOINTS.values()]
    for split, count in PERSONS.items():
        annotations = load_annotations(data_root / f'annotations/mpii_{split}.json')
        few = {key: values[:count] for key, values in annotations.items()}
        few['joints'] = np.stack([few['joints'][:, group].mean(axis=1) for group in members], axis=1)
        few['visible'] = np.stack([few['visible'][:, group].all(axis=1) for group in members], axis=1)
        save_annotations(out / f'{split}.json', few)
    heads = load_head_boxes(data_root / 'annotations/mpii_gt_val.mat')[: PERSONS['val']]
    save_ground_truth(out / 'gt_val.mat', few['joints'], few['visible'], heads, list(KEYPOINTS))


def metainfo() -> dict:
    def mirrored(name: str) -> str:
        sides = {'right': 'left', 'left': 'right'}
        return '_'.join(sides.get(word, word) for word in name.split('_'))

    return dict(
        dataset_name='seven',
        keypoint_info={
            number: dict(
                name=name,
                id=number,
                color=[255, 128, 0],
                type='',
                swap='' if mirrored(name) == name else mirrored(name),
            )
            for number, name in enumerate(KEYPOINTS)
        },
        skeleton_info={},
        joint_weights=[1.0] * len(KEYPOINTS),
        sigmas=[0.05] * len(KEYPOINTS),
    )


def finetune_config(args: argparse.Namespace, out: Path, weights: str | None) -> Config:
    cfg = load_config(ROOT / 'configs/hg_2stack_lspet_128.py', work_dir=str(out))
    cfg.model.backbone.num_keypoints = len(KEYPOINTS)
    cfg.model.test_cfg.unannotated_keypoints = []
    images = str(args.data_root.absolute() / 'images')
    cfg.train_dataloader.dataset = cfg.train_dataloader.dataset.datasets[0]
    for split, loader in (('train', cfg.train_dataloader), ('val', cfg.val_dataloader)):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=str(args.out.absolute()),
            ann_file=f'{split}.json',
            data_prefix=dict(img=images),
            metainfo=metainfo(),
        )
    cfg.val_dataloader.dataset.headbox_file = str(args.out.absolute() / 'gt_val.mat')
    cfg.train_dataloader.sampler = dict(type='SeededInfiniteSampler', shuffle=True)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=args.steps, val_interval=args.steps // 4)
    warmup = args.steps // 8
    cfg.param_scheduler = [
        dict(type='LinearLR', begin=0, end=warmup, start_factor=0.01, by_epoch=False),
        dict(
            type='CosineAnnealingLR',
            begin=warmup,
            end=args.steps,
            T_max=args.steps - warmup,
            by_epoch=False,
        ),
    ]
    cfg.optim_wrapper.optimizer.lr = 1e-3
    cfg.default_hooks.checkpoint.update(interval=-1, save_best=None, save_last=False)
    cfg.log_processor = dict(type='LogProcessor', by_epoch=False)
    cfg.randomness = dict(seed=0)
    cfg.load_from = weights
    return cfg


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data-root', type=Path, default='data/lspet_mpii', help='(default: %(default)s)')
    parser.add_argument('--steps', type=int, default=80, help='of 16 images (default: %(default)s)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder of the results')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_annotations(args.data_root, args.out)
    steps = [args.steps * quarter // 4 for quarter in (1, 2, 3, 4)]
    lines = [f'| steps of 16 images | {" | ".join(map(str, steps))} |', '|' + '---|' * (len(steps) + 1)]
    for title, weights in (('from the network of the package', WEIGHTS), ('from nothing', None)):
        train(finetune_config(args, args.out / title.split()[-1], weights))
        curve, _ = MessageHub.get_current_instance().get_scalar('val/Mean').data
        lines.append(f'| {title} | {" | ".join(f"{value:.1f}" for value in curve)} |')
    text = '\n'.join(lines) + '\n'
    (args.out / 'finetune_keypoints.md').write_text(text)
    print(text)


if __name__ == '__main__':
    main()
