"""A training that takes a second, with the plugin's hooks, for tests of checkpoints."""

import copy

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch.utils._pytree import tree_map_only

import hg_plugin  # noqa: F401


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, width=4, padding=0):
        super().__init__()
        self.layer = torch.nn.Linear(width, 3)
        self.register_buffer('padding', torch.zeros(padding))
        self.register_buffer('steps', torch.tensor(0))

    def forward(self, inputs, mode, **kwargs):
        inputs = torch.stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
        result = self.layer(inputs[:, : self.layer.in_features])
        if mode == 'loss':
            self.steps += 1
            return dict(loss=result.square().mean())
        return [dict(steps=int(self.steps)) for _ in result]


@DATASETS.register_module()
class ToyDataset(BaseDataset):
    def load_data_list(self):
        generator = torch.Generator().manual_seed(0)
        return [dict(inputs=torch.randn(8, generator=generator)) for _ in range(8)]


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Scores that are given, by the number of training steps in units of ``every``."""

    def __init__(self, scores, every=2):
        super().__init__()
        self.scores, self.every = scores, every

    def process(self, data_batch, data_samples):
        self.results += [sample['steps'] for sample in data_samples]

    def compute_metrics(self, results):
        score = self.scores[min(results[0] // self.every, len(self.scores) - 1)]
        return score if isinstance(score, dict) else dict(Mean=float(score))


def toy_config(work_dir, **options) -> Config:
    """Three epochs of two iterations, with a validation after every one. ``options`` override parts."""
    loader = dict(
        batch_size=4,
        num_workers=0,
        dataset=dict(type='ToyDataset', lazy_init=False),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    cfg = QuickConfig(
        dict(
            work_dir=str(work_dir),
            model=dict(type='ToyModel'),
            train_dataloader=loader,
            val_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1),
            val_cfg=dict(),
            val_evaluator=dict(type='ToyMetric', scores=[0, 1, 2, 3, 4, 5, 6]),
            optim_wrapper=dict(type='AutocastOptimWrapper', optimizer=dict(type='Adam', lr=0.01)),
            param_scheduler=[
                dict(type='LinearLR', begin=0, end=4, start_factor=0.1, by_epoch=False),
                dict(type='MultiStepLR', begin=0, end=3, milestones=[2], gamma=0.1, by_epoch=True),
            ],
            default_hooks=dict(
                runtime_info=dict(type='LazyRuntimeInfoHook'),
                checkpoint=dict(
                    type='SafeCheckpointHook', interval=1, max_keep_ckpts=2, save_best='Mean', rule='greater'
                ),
                logger=dict(type='LoggerHook', interval=1),
            ),
            randomness=dict(seed=0),
            resume=False,
        )
    )
    cfg.merge_from_dict(copy.deepcopy(options))
    return cfg


def assert_same(a, b):
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        left, right = (tree_map_only(torch.Tensor, torch.Tensor.tolist, state[key]) for state in (a, b))
        assert left == right, key
    assert (a['meta']['epoch'], a['meta']['iter']) == (b['meta']['epoch'], b['meta']['iter'])


class QuickConfig(Config):
    pretty_text = property(lambda self: repr(self))  # the stock one takes yapf's time for every checkpoint


class QuickRunner(Runner):
    def _log_env(self, env_cfg):
        """It runs nvcc and gcc to log their versions."""


def forget_runners() -> None:
    """Runners that are built within a second have one name, and share these."""
    for instances in (MessageHub, MMLogger, Visualizer, DefaultScope):
        instances._instance_dict.clear()


def build(work_dir, **options) -> Runner:
    forget_runners()
    return QuickRunner.from_cfg(toy_config(work_dir, **options))


def train(work_dir, **options) -> Runner:
    """Train and return the runner."""
    runner = build(work_dir, **options)
    runner.train()
    return runner
