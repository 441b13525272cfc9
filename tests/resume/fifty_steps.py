"""A training of 50 steps in five epochs, as by ``hg_plugin train``, with all that keeps a training alive.

``python tests/resume/fifty_steps.py WORK_DIR [--resume]``
"""

import sys

from toy_training import toy_config

import hg_plugin.training.runner
from hg_plugin.engine.hooks import report_hook
from hg_plugin.utils.errors import command


def main(work_dir, resume=None):
    toy = toy_config(work_dir)
    toy.train_dataloader.dataset.serialize_data = False  # it collects garbage, which takes a second
    dataset = dict(type='RepeatDataset', times=5, dataset=toy.train_dataloader.dataset)
    cfg = toy_config(
        work_dir,
        train_dataloader=dict(dataset=dict(_delete_=True, **dataset), sampler=dict(type='SeededSampler')),
        val_dataloader=dict(dataset=dict(serialize_data=False)),
        train_cfg=dict(max_epochs=5),
        val_evaluator=dict(scores=[0, 3, 1, 2, 4, 5], every=10),
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(
            exact_resume=dict(type='ExactResumeHook'),
            preemption=dict(type='PreemptionHook'),
            divergence=dict(type='DivergenceHook'),
            report=dict(type='ReportHook'),
            logger=dict(interval=5),
        ),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
    )
    hg_plugin.training.runner.train(cfg, resume=bool(resume))


if __name__ == '__main__':
    # what logs versions takes longer than the training
    report_hook.describe = dict
    hg_plugin.training.runner.QuietRunner._log_env = lambda self, env_cfg: None
    command(main)(*sys.argv[1:])
