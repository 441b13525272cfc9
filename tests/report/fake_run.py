"""A work directory as a training leaves it, in no time."""

import json
import math
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from hg_plugin.compat.mmengine import MIM
from hg_plugin.engine.hooks.report_hook import EVENTS, PREDICTIONS, RECORD

BEGIN = datetime(2026, 1, 5, 8)


class FakeRun:
    """Writes starts of a training one after the other."""

    def __init__(self, folder, config='hg_2stack_synthetic.py', per_epoch=20, **options):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cfg = Config.fromfile(MIM / 'configs' / config)
        self.cfg.merge_from_dict(options)
        self.text = self.cfg.pretty_text
        (self.folder / config).write_text(self.text)
        self.per_epoch = per_epoch
        self.time = BEGIN
        self.starts = 0

    def start(self, first, last, every=10, events=(), run_id='a', record=True):
        """Iterations ``first`` + 1 to ``last``, with ``events`` of (iteration, level, kind, text)."""
        rng = np.random.default_rng(first)
        name = f'{self.time:%Y%m%d_%H%M%S}'
        place = self.folder / name
        (place / 'vis_data').mkdir(parents=True)
        (place / 'vis_data/config.py').write_text(self.text)
        rows = []
        for iteration in range(first + every, last + 1, every):
            epoch, inner = divmod(iteration - 1, self.per_epoch)
            x = iteration / self.per_epoch
            noise = 1 + 0.1 * rng.standard_normal()
            row = dict(lr=1e-3, data_time=0.02, time=0.2)
            row |= {f'loss_stage{stage}': (0.01 + 0.1 / (stage + 1 + x)) * noise for stage in range(2)}
            row |= dict(heatmap_peak=1 - 0.8 / (1 + x), acc_pose=1 - 1 / (1 + x), epoch=epoch + 1)
            rows.append({**row, 'iter': iteration, 'step': iteration})
            if inner + 1 > self.per_epoch - every:
                mean = 90 - 60 / (1 + x)
                row = dict(Head=mean + 5, Hip=math.nan, Mean=mean, AUC=mean / 3, time=1.5, step=epoch + 1)
                rows.append(row | {'Mean@0.1': mean / 4, 'stage0/Mean': mean - 4, 'stage1/Mean': mean})
        seconds = 0.25 * (last - first)
        content = [dict(iter=at, level=level, kind=kind, text=text) for at, level, kind, text in events]
        for name, lines in (('vis_data/scalars.json', rows), (EVENTS, content)):
            (place / name).write_text(''.join(json.dumps(line) + '\n' for line in lines))
        if record:
            own = dict(
                start=self.starts, resumed=first, run_id=run_id, per_epoch=self.per_epoch,
                iter=last, seconds=seconds, complete=False, device='A fast GPU', processes=2,
                environment={'torch': '2.13.0', 'git, hg_plugin': '0123456789ab on main'}
            )  # fmt: skip
            (place / RECORD).write_text(json.dumps(own))
        self.starts += 1
        self.time += timedelta(minutes=5)
        return place

    def predict(self, place):
        """Writes predictions of 40 persons that stand, in two stages, on one image."""
        image, rng = self.folder / 'person.png', np.random.default_rng(0)
        cv2.imwrite(str(image), rng.integers(0, 255, (200, 160, 3), np.uint8))
        content = dict(np.load(Path(__file__).with_name('predictions.npz')))
        content.update(run=place.name, ids=np.arange(40), images=np.array([str(image)] * 40))
        np.savez(self.folder / PREDICTIONS, **content)
