"""Tests with the reparameterized network that inference runs."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hg_plugin.models import reparameterize


@HOOKS.register_module()
class ReparameterizeHook(Hook):
    """Predict with a :func:`reparameterize`'d copy of the model during a test.

    Only ``predict`` of the model is replaced, and put back afterwards: :class:`EMAHook` and wrappers for
    distributed testing rely on its modules and parameters. Training and validation use the model itself.

    Args:
        enable: Whether to do so, as with ``default_hooks.reparameterize.enable=True``. Defaults to False.

    Raises:
        InputError: If the test begins with a model without a :class:`StackedHourglass`.
    """

    # after EMAHook, which puts the averaged weights into the model before a test
    priority = 'VERY_LOW'

    def __init__(self, enable: bool = False):
        self.enable = enable

    def before_test_epoch(self, runner: Runner) -> None:
        if self.enable:
            self.model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            all_stacks = any(self.model.test_cfg.get(key) for key in ('output_stages', 'stage_keypoints'))
            self.model.predict = reparameterize(self.model, all_stacks=all_stacks).predict
            runner.logger.info('The test runs the reparameterized network.')

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if self.enable:
            del self.model.predict
