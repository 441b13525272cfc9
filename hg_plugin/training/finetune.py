"""Fine-tune the network of the package on a dataset that ``hg_plugin prepare`` has made."""

import math
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.registry import DATASETS
from mmengine.runner import load_checkpoint
from torch import Tensor

from hg_plugin.engine.hooks import ProgressHook
from hg_plugin.utils.checkpoint import (
    KPT_THR,
    dataset_meta_of,
    read_checkpoint,
    save,
    weights_of,
    write_kpt_thr,
)
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.json_files import read_json
from hg_plugin.utils.progress import Progress
from hg_plugin.utils.weights import DEFAULT, shipped_networks
from hg_plugin.visualization import draw_beside_truth, label, write_grid

from .runner import load_config, train

# at least, of 16 persons each
STEPS, EPOCHS, BATCH = 100, 10, 16
# of the longer side of a person's box: a keypoint of the sheet that is not further off is right
THRESHOLD = 0.2
CONFIG = '''"""Fine-tune the network of the package on {persons} persons. hg_plugin finetune keeps edits."""

_base_ = ['hg_plugin::_base_/finetune.py']
root = {root!r}
load_from = root + 'start.pth'
data = dict(data_root=root, metainfo=dict(from_file=root + 'metainfo.py'))
model = dict(backbone=dict(num_keypoints={keypoints}))
train_dataloader = dict(batch_size={batch}, dataset=data)
val_dataloader = dict(dataset=data)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs={epochs}, val_interval={interval})
optim_wrapper = dict(optimizer=dict(lr={lr}, muon_lr={muon_lr}))
param_scheduler = [
    dict(type='LinearLR', end={warmup}, start_factor=0.01, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max={epochs}, end={epochs}, convert_to_iter_based=True),
]
'''


def finetune(
    data: str | PathLike,
    work_dir: str | None = None,
    cfg_options: dict | None = None,
    resume: bool = False,
) -> tuple[Path, Path]:
    """Train from the weights of the package, and draw what comes of it.

    Args:
        data: A folder of ``hg_plugin prepare``. Its ``finetune.py`` is the config; it is written where it is
            not there.
        work_dir: Folder of logs and checkpoints. Defaults to ``work_dirs/finetune`` in ``data``.
        cfg_options: Settings to override. Defaults to None.
        resume: Continue an interrupted training. Defaults to False.

    Returns:
        The config, and the checkpoint with the best PCK.

    Raises:
        InputError: There is no dataset in the folder, or too little of it.
    """
    config = Path(data, 'finetune.py')
    if not config.exists():
        write_config(Path(data))
    cfg = load_config(config, work_dir or str(Path(data, 'work_dirs/finetune')), cfg_options=cfg_options)
    with Progress(0, 'steps') as progress:
        model = train(cfg, resume=resume, hooks=[ProgressHook(progress)])
    checkpoint = MessageHub.get_current_instance().get_info('best_ckpt')
    load_checkpoint(model, checkpoint, map_location='cpu')
    kpt_thr = draw_sheet(model, cfg, Path(cfg.work_dir, 'val.png'))
    write_kpt_thr(checkpoint, kpt_thr)
    return config, Path(checkpoint)


def write_config(data: Path) -> None:
    """Write ``finetune.py`` and the weights to start from, ``start.pth``, beside the annotations."""
    root = data.absolute()
    if not (root / 'metainfo.py').is_file():
        raise InputError(f'{data} has no metainfo.py; make the dataset with hg_plugin prepare.')
    persons = len(read_json(root / 'annotations/train.json', 'annotations')['annotations'].value)
    if persons < 2:
        raise InputError(f'{data} has {persons} persons to train on; annotate more.')
    info = Config.fromfile(root / 'metainfo.py').dataset_info
    names = [keypoint['name'] for keypoint in info.keypoint_info.values()]
    weights, known = adapted_weights(names)
    with atomic_write(root / 'start.pth') as file:
        save(dict(state_dict=weights), file)
    batch = min(BATCH, persons)
    epochs = max(math.ceil(STEPS / (persons // batch)), EPOCHS)
    # a network that knows all keypoints forgets at the rates at which new ones are learned
    lr, muon_lr = (2e-4, 0.004) if known == len(names) else (1e-3, 0.02)
    numbers = dict(
        persons=persons, keypoints=len(names), batch=batch, root=f'{root}/', lr=lr, muon_lr=muon_lr
    )
    text = CONFIG.format(epochs=epochs, interval=epochs // 5, warmup=epochs // 5, **numbers)
    with atomic_write(root / 'finetune.py') as file:
        file.write(text.encode())


def adapted_weights(names: Sequence[str]) -> tuple[dict[str, Tensor], int]:
    """The weights of the package's network for other keypoints, and how many of them it knows.

    A keypoint starts as the one of its name, or else as the mean of all.
    """
    path = str(shipped_networks()[DEFAULT].checkpoint)
    content = read_checkpoint(path)
    meta, weights = dataset_meta_of(content, path), weights_of(content, path)
    assert meta
    known = {words_of(name): index for name, index in meta['keypoint_name2id'].items()}
    mixed = torch.full((len(names), len(known)), 1 / len(known))
    for row, name in zip(mixed, names):
        if words_of(name) in known:
            row.zero_()[known[words_of(name)]] = 1
    for name, tensor in weights.items():
        if '.scores.' in name:
            weights[name] = torch.einsum('kj,j...->k...', mixed, tensor.float())
        elif 'from_heatmaps.weight' in name:
            weights[name] = torch.einsum('kj,cj...->ck...', mixed, tensor.float())
    return weights, sum(words_of(name) in known for name in names)


def words_of(name: str) -> frozenset[str]:
    """What a keypoint's name says: ``left_wrist``, ``LeftWrist`` and ``wrist-l`` the same."""
    words = (word.lower() for word in re.findall('[A-Z]?[a-z]+|[A-Z]+', name))
    return frozenset(dict(l='left', r='right').get(word, word) for word in words) - {'upper', 'top'}


def draw_sheet(model: torch.nn.Module, cfg: Config, path: Path, most: int = 24) -> float:
    """Draw validation persons: prediction, annotation, and the number of keypoints that are right.

    Returns:
        The score that nine of ten right keypoints reach, from which on predictions are drawn.
    """
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    persons = []
    for index in np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int).tolist():
        with torch.no_grad():
            (sample,) = model.eval().test_step(pseudo_collate([dataset[index]]))
        truth, found = sample.gt_instances, sample.pred_instances
        annotated = truth.keypoints_visible[0].reshape(-1) > 0
        left, top, right, bottom = truth.bboxes[0]
        distance = np.linalg.norm(truth.keypoints[0] - found.keypoints[0], axis=1)
        within = distance <= THRESHOLD * max(right - left, bottom - top)
        persons.append((sample, annotated, annotated & within))
    scores = [sample.pred_instances.keypoint_scores[0][right] for sample, _, right in persons]
    kpt_thr = float(np.quantile(np.concatenate(scores), 0.1)) if any(map(len, scores)) else KPT_THR
    cells = []
    for sample, annotated, right in persons:
        drawn = draw_beside_truth(sample, dataset.metainfo, kpt_thr=kpt_thr)
        text = f'{Path(sample.img_path).name}: {right.sum()} of {annotated.sum()}'
        cells.append(np.vstack([drawn, label(text, (drawn.shape[1], 20))]))
    title = (
        f'prediction (scores of {kpt_thr:.2f} or more), annotation; keypoints within {THRESHOLD} of the '
        'longer side of the box'
    )
    write_grid(path, cells, title)
    return kpt_thr
