"""Tests the network that inference will run, instead of the trained one."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from hg_plugin.models.reparameterize import reparameterize


@HOOKS.register_module()
class ReparameterizeHook(Hook):
    """Predicts with a :func:`reparameterize`'d copy of the model for as long as a test takes.

    The model itself, its modules and its parameters stay as they are, which is what :class:`EMAHook` and a wrapper for
    distributed testing rely on: only its ``predict`` is the copy's meanwhile. Training and validation never see it.

    Args:
        enable: Do so; ``--cfg-options default_hooks.reparameterize.enable=True`` of tools/test.py. Defaults to False.

    Raises:
        InputError: when the test begins, for a model without a :class:`StackedHourglass`.
    """

    # behind EMAHook, which puts the averaged weights into the model before a test
    priority = 'VERY_LOW'

    def __init__(self, enable: bool = False):
        self.enable = enable

    def before_test_epoch(self, runner: Runner) -> None:
        if self.enable:
            model = unwrapped(runner).eval()
            model.predict = reparameterize(
                model, all_stacks=model.test_cfg.get('output_stages', False)
            ).predict
            runner.logger.info('The test runs the reparameterized network.')

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if self.enable:
            del unwrapped(runner).predict


def unwrapped(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
