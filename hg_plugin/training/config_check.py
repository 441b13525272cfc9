"""Check a config for plausible mistakes before anything is built from it."""

import ast
import difflib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mmengine import registry
from mmengine.config import Config
from mmpose.registry import KEYPOINT_CODECS

from hg_plugin.compat.torch import torch_before
from hg_plugin.utils.config import DATASET, LOADER, parts_of
from hg_plugin.utils.errors import InputError

from .metainfo_check import metainfo_problems
from .metric_check import METRIC, metric_problems

# patterns for parts_of
TRANSFORM = DATASET + r'\.pipeline\.\d+'
CODEC = r'model\.(codec|data_preprocessor\.encoder|head\.decoder)'
REGISTRIES = {
    r'model(\.(data_preprocessor|backbone|neck|head|head\.loss(\.\d+)?))?': registry.MODELS,
    CODEC: KEYPOINT_CODECS,
    LOADER + DATASET: registry.DATASETS,
    LOADER + TRANSFORM: registry.TRANSFORMS,
    r'optim_wrapper': registry.OPTIM_WRAPPERS,
    r'optim_wrapper\.optimizer': registry.OPTIMIZERS,
    r'param_scheduler(\.\d+)?': registry.PARAM_SCHEDULERS,
    r'default_hooks\.\w+|custom_hooks\.\d+': registry.HOOKS,
    r'(val|test)' + METRIC: registry.METRICS,
}


def check_config(cfg: Config) -> None:
    """Check a config with all options merged, before anything is built from it.

    Raises:
        InputError: A class is not registered; a variable was changed that nothing reads; metainfo has a slip;
            ``save_best``, a monitor or its rule does not fit the metrics; two metrics have one name; or the
            installed torch cannot combine two options.
    """
    for problem in chain(
        _unknown_names(cfg),
        _unread_variables(cfg),
        metainfo_problems(cfg),
        metric_problems(cfg),
        _uncombinable(cfg),
    ):
        raise InputError(problem)


def _unknown_names(cfg: Config) -> Iterator[str]:
    for pattern, root in REGISTRIES.items():
        for place, part in parts_of(cfg, pattern).items():
            name = part.get('type')
            if isinstance(name, str) and '.' not in name:  # with a dot: the path of a class, or another scope
                with root.switch_scope_and_registry(cfg.get('default_scope') or 'mmengine') as known:
                    names = [*known.module_dict, *(known.parent.module_dict if known.parent else ())]
                    found = known.get(name)
                if found is None:
                    near = difflib.get_close_matches(name, names, n=1)
                    advice = f"did you mean '{near[0]}'?" if near else 'do custom_imports name its module?'
                    yield f"{place}.type is '{name}', which is not registered; {advice}"


def _unread_variables(cfg: Config) -> Iterator[str]:
    """Inherited variables that the config's own file assigns, where nothing reads them any more."""
    own = ast.parse(Path(cfg.filename).read_text('utf-8-sig')).body if cfg.filename else []
    assigned = {
        target.id
        for node in own
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if '_base_' not in assigned:  # such as a config that a run has written
        return
    if 'codec' in assigned and cfg.codec not in parts_of(cfg, r'model\..+').values():
        yield f'{cfg.filename} sets codec, which nothing reads; set model.codec, too.'
    roots = [dataset.get('data_root') for dataset in parts_of(cfg, LOADER + DATASET).values()]
    if 'data_root' in assigned and not any(str(root).startswith(cfg.data_root) for root in roots):
        yield (
            f"{cfg.filename} sets data_root to '{cfg.data_root}', but no dataset has it; set the data_root "
            'of the datasets, too.'
        )


def _uncombinable(cfg: Config) -> Iterator[str]:
    # torch 2.7 and older count every batch twice in the running statistics; 2.8 was not tried
    with_cp = [part.get('with_cp') for part in parts_of(cfg, r'model\.backbone').values()]
    if cfg.get('compile') and any(with_cp) and torch_before('2.9'):
        yield 'compile and model.backbone.with_cp need torch 2.9 to work together; leave one of them out.'
