"""Tests with the reparameterized network that inference runs."""

from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import TestLoop

from hg_plugin.models import reparameterize


@LOOPS.register_module()
class ReparameterizedTestLoop(TestLoop):
    """MMEngine's ``TestLoop``, predicting with a :func:`reparameterize`'d copy of the model.

    In a config: ``test_cfg = dict(type='ReparameterizedTestLoop')``. Only ``predict`` of the model is
    replaced, and put back afterwards: EMAHook and wrappers for distributed testing rely on its modules and
    parameters.

    Raises:
        InputError: If the test begins with a model without a :class:`StackedHourglass`.
    """

    def run(self) -> dict:
        runner = self.runner
        self.model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        try:
            return super().run()
        finally:
            vars(self.model).pop('predict', None)

    def run_iter(self, idx: int, data_batch) -> None:
        if 'predict' not in vars(self.model):  # now that hooks have put averaged weights into the model
            all_stacks = self.model.test_cfg.get('stage_keypoints', False)
            self.model.predict = reparameterize(self.model, all_stacks=all_stacks).predict
            self.runner.logger.info('The test runs the reparameterized network.')
        super().run_iter(idx, data_batch)
