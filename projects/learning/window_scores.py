"""How well the scores of a network tell windows with a person from windows without.

    python projects/learning/window_scores.py CONFIG CHECKPOINT --data-root data/lspet_mpii

Windows are of the validation images: the persons' boxes, boxes displaced by up to a tenth, and each kind of
hg_plugin.datasets.RandomNegative. A window's score is the mean of its annotated keypoints', without the flip
test. AUC is the probability that a displaced box scores higher than a window of that kind.
"""

import argparse
import copy
import tempfile

import numpy as np
import torch
from mmengine.runner import Runner

from hg_plugin.datasets.negatives import KINDS
from hg_plugin.training.runner import load_config

KEPT = 0.9  # share of the displaced boxes above the threshold


def scores(runner: Runner, negative: dict | None = None, **crop) -> np.ndarray:
    """Scores of one window a person. Those that :class:`RandomNegative` could not replace are left out."""
    loader = copy.deepcopy(runner.cfg.test_dataloader)
    loader.dataset.pipeline[1].update(crop)
    if negative:
        loader.dataset.pipeline.insert(1, negative)
    np.random.seed(0)
    found = []
    with torch.inference_mode():
        for batch in Runner.build_dataloader(loader):
            for sample in runner.model.test_step(batch):
                if not negative or (sample.gt_instances.keypoints_visible < 0).any():
                    annotated = sample.gt_instances.keypoints_visible[0] != 0
                    found.append(sample.pred_instances.keypoint_scores[0][annotated].mean())
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file with GetBBoxCenterScale and TopdownCrop')
    parser.add_argument('checkpoint')
    parser.add_argument('--data-root', help="folder of the dataset, instead of the config's")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(args.config, work_dir=folder, data_root=args.data_root)
        cfg.load_from = args.checkpoint
        cfg.model.test_cfg.update(flip_test=False, stage_keypoints=False)
        cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
        runner = Runner.from_cfg(cfg)
        runner.load_or_resume()
        runner.model.eval()
        persons = scores(runner, scale_factor=(0.9, 1.1), shift_factor=0.1)
        rows = [('annotated box', scores(runner)), ('displaced box', persons)]
        for kind in KINDS:
            rows.append((kind, scores(runner, dict(type='RandomNegative', prob=1, kinds={kind: 1}))))
    threshold = np.quantile(persons, 1 - KEPT)
    print(
        f'| window | count | median score | 90 % below | above {threshold:.2f} | AUC |\n' + '|---' * 6 + '|'
    )
    for name, values in rows:
        auc = (persons[:, None] > values).mean() if name in KINDS else 1
        print(
            f'| {name} | {len(values)} | {np.median(values):.2f} | {np.quantile(values, 0.9):.2f} | '
            f'{(values > threshold).mean():.1%} | {f"{auc:.3f}" if name in KINDS else ""} |'
        )


if __name__ == '__main__':
    main()
