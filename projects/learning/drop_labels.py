"""Leave out labels that a trained network disagrees with: write an annotation file without them.

    python projects/learning/drop_labels.py configs/hg_2stack_lspet_128.py CHECKPOINT --out clean.json
    python tools/train.py CONFIG --cfg-options train_dataloader.dataset.datasets.0.ann_file=$PWD/clean.json

A label goes if the network is sure of another place: its score is above ``--score``, and the distance above
``--distance`` of the person's size, the square root of the area of the box around the annotated keypoints.
Predictions are made with the config's flip test.
"""

import argparse
import os.path as osp
import tempfile

import numpy as np
import torch
from mmengine.runner import Runner
from rich.progress import track

from hg_plugin.mpii_format import load_annotations, save_annotations
from hg_plugin.training.runner import load_config


def disagrees(labels, visible, predicted, scores, distance: float, score: float) -> np.ndarray:
    """Which of a person's visible labels the network contradicts.

    Args:
        labels: Annotated keypoints in pixels, (K, 2).
        visible: Which of them are annotated, (K,) bool; one at least.
        predicted, scores: Of the network, (K, 2) and (K,).
        distance: In sizes of the person.
        score: Below it, the network is not sure.

    Returns:
        (K,) bool.
    """
    size = np.sqrt(np.prod(np.ptp(labels[visible], axis=0)))
    far = np.linalg.norm(predicted - labels, axis=-1) > distance * size
    return visible & far & (scores > score)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file; of several annotation files the first is read')
    parser.add_argument('checkpoint', help='checkpoint file of a network that was trained on them')
    parser.add_argument('--data-root', help="folder of the dataset, instead of the config's")
    parser.add_argument('--distance', type=float, default=0.25, help='default: %(default)s')
    parser.add_argument('--score', type=float, default=0.4, help='default: %(default)s')
    parser.add_argument('--out', required=True, help='annotation file to write')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(args.config, work_dir=folder, data_root=args.data_root)
        loader, train = cfg.val_dataloader, cfg.train_dataloader.dataset
        train = train.get('datasets', [train])[0]
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(ann_file=train.ann_file, headbox_file=None)
        cfg.load_from = args.checkpoint
        runner = Runner.from_cfg(cfg)
        runner.load_or_resume()
    model = runner.model.eval()
    people = load_annotations(osp.join(train.data_root, train.ann_file))
    visible = people['visible']
    before = visible.sum()
    with torch.inference_mode():
        for batch in track(runner.val_dataloader, 'Predicting'):
            for sample in model.val_step(batch):
                found = sample.pred_instances
                visible[sample.id] &= ~disagrees(
                    sample.gt_instances.keypoints[0],
                    visible[sample.id],
                    found.keypoints[0],
                    found.keypoint_scores[0],
                    args.distance,
                    args.score,
                )
    save_annotations(args.out, people)
    dropped = before - visible.sum()
    print(
        f'{dropped:,} of {before:,} labels of {len(visible):,} persons are left out ({dropped / before:.1%}).'
    )


if __name__ == '__main__':
    main()
