"""The table of a network's card: PCKh of each joint at 0.5 and 0.1, AUC, and where predictions fall.

python tools/test.py CONFIG CHECKPOINT --dump predictions.pkl
python projects/learning/card.py predictions.pkl
"""

import argparse
from pathlib import Path

import numpy as np
from mmengine.fileio import load

from hg_plugin.evaluation.pckh import THRESHOLDS
from hg_plugin.report.persons import PLACES, Persons


def persons_of(samples: list[dict]) -> Persons:
    """The samples of MMEngine's DumpResults as a report has them."""
    truth, found = ([sample[key] for sample in samples] for key in ('gt_instances', 'pred_instances'))
    visible = np.concatenate([instance['keypoints_visible'] for instance in truth])
    return Persons(
        images=np.array([sample['img_path'] for sample in samples]),
        keypoints=np.concatenate([instance['keypoints'] for instance in found])[:, None],
        truth=np.concatenate([instance['keypoints'] for instance in truth]),
        annotated=visible.reshape(*visible.shape[:2], -1)[:, :, 0] > 0,
        head_size=np.array([np.asarray(instance['head_size']).item() for instance in truth]),
        boxes=np.concatenate([instance['bboxes'] for instance in truth]),
        centers=np.array([sample['input_center'] for sample in samples]),
        scales=np.array([sample['input_scale'] for sample in samples]),
        ids=np.array([sample['id'] for sample in samples]),
        run='',
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('predictions', type=Path)
    persons = persons_of(load(parser.parse_args().predictions))
    curves = persons.curves()
    rows = {
        f'@{at}': [curve[np.searchsorted(THRESHOLDS, at)] for curve in curves.values()] for at in (0.5, 0.1)
    }
    rows['AUC'] = [curve.mean() for curve in curves.values()]
    print('| PCKh |', ' | '.join(curves), '|\n' + '|---' * (len(curves) + 1) + '|')
    for name, row in rows.items():
        print(f'| {name} |', ' | '.join(f'{value:.1f}' for value in row), '|')
    print('\n| % of', ' | '.join(('predictions', *PLACES)), '|\n' + '|---' * (len(PLACES) + 1) + '|')
    sides = persons.sides()
    for joint in sides[PLACES[0]]:
        print(f'| {joint} |', ' | '.join(f'{sides[place][joint]:.1f}' for place in PLACES), '|')


if __name__ == '__main__':
    main()
