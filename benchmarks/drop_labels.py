"""Leave out labels that a trained network disagrees with: write an annotation file without them.

    python benchmarks/drop_labels.py configs/hg_2stack_lspet_128.py CHECKPOINT --out clean.json
    python tools/train.py CONFIG --cfg-options train_dataloader.dataset.ann_file=$PWD/clean.json

A label goes if the network is sure of another place: its score is above ``--score``, and the distance above
``--distance`` of the person's size, the square root of the area of the box around the annotated keypoints.
Predictions are made with the config's flip test.
"""

import argparse
import json
import os.path as osp
import tempfile

import numpy as np
import torch
from mmengine.runner import Runner, load_checkpoint

from hg_plugin.training.runner import load_config


def disagrees(labels, visible, predicted, scores, distance: float, score: float) -> np.ndarray:
    """Which of a person's K visible labels, of shape (K, 2), the network contradicts: shape (K,)."""
    size = np.sqrt(np.prod(np.ptp(labels[visible], axis=0)))
    far = np.linalg.norm(predicted - labels, axis=-1) > distance * size
    return visible & far & (scores > score)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file, with the annotations that it trains on')
    parser.add_argument('checkpoint', help='checkpoint file of a network that was trained on them')
    parser.add_argument('--data-root', help="folder of the dataset, instead of the config's")
    parser.add_argument('--distance', type=float, default=0.25, help='default: %(default)s')
    parser.add_argument('--score', type=float, default=0.4, help='default: %(default)s')
    parser.add_argument('--out', required=True, help='annotation file to write')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(args.config, work_dir=folder, data_root=args.data_root)
        loader, train = cfg.val_dataloader, cfg.train_dataloader.dataset
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(ann_file=train.ann_file, headbox_file=None)
        runner = Runner.from_cfg(cfg)
    model = runner.model.eval()
    load_checkpoint(model, args.checkpoint, map_location='cpu')
    with open(osp.join(train.data_root, train.ann_file)) as file:
        people = json.load(file)
    dropped = seen = 0
    with torch.inference_mode():
        for number, batch in enumerate(runner.val_dataloader, 1):
            for sample in model.val_step(batch):
                labels, predictions = sample.gt_instances, sample.pred_instances
                visible = labels.keypoints_visible[0] > 0
                bad = disagrees(
                    labels.keypoints[0],
                    visible,
                    predictions.keypoints[0],
                    predictions.keypoint_scores[0],
                    args.distance,
                    args.score,
                )
                people[sample.id]['joints_vis'] = (visible & ~bad).astype(int).tolist()
                dropped, seen = dropped + int(bad.sum()), seen + int(visible.sum())
            print(f'{number} of {len(runner.val_dataloader)} batches', end='\r', flush=True)
    with open(args.out, 'w') as file:
        json.dump(people, file)
    print(f'{dropped:,} of {seen:,} labels of {len(people):,} persons are left out ({dropped / seen:.1%}).')


if __name__ == '__main__':
    main()
