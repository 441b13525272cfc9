"""Check the settings of an optimizer against the parameters that it is given."""

import difflib

from mmengine.runner import Runner


def check_custom_keys(runner: Runner) -> None:
    """Warn of a custom key of ``paramwise_cfg`` that is in no parameter's name, and so has no effect."""
    names = [name for name, _ in runner.model.named_parameters()]
    # not a wrapper that was built already, nor what the runner is about to refuse
    wrapper = runner.cfg.optim_wrapper
    settings = (isinstance(wrapper, dict) and wrapper.get('paramwise_cfg')) or {}
    for key in settings.get('custom_keys') or ():
        if not any(key in name for name in names):
            parts = {part for name in names for part in name.split('.')}
            near = difflib.get_close_matches(key.rpartition('.')[2], parts, n=1)
            hint = f'; did you mean {near[0]!r}?' if near else '.'
            runner.logger.warning(f'paramwise_cfg: no parameter has the custom key {key!r} in its name{hint}')
