"""Check the names of metrics in a config: what is computed, and what waits for it."""

from collections.abc import Iterator

from mmengine.config import Config

from hg_plugin.evaluation import METRIC_NAMES
from hg_plugin.utils.config import DATASET, parts_of

METRIC = r'_evaluator(\.\d+)?'
# what metrics compute, without prefix
COMPUTED = dict(
    MPIIPCKh=METRIC_NAMES, AUC=('AUC',), EPE=('EPE',), NME=('NME',), CocoMetric=('AP', 'AR'), PCKAccuracy=()
)
NORM_ITEMS = dict(bbox='PCK', head='PCKh', torso='tPCK')
# MMPose's classes for MPII count pixels from 1, and this package's from 0
PIXEL_OFF = (('MPIIPoseDataset', 'MpiiPCKAccuracy'), ('MpiiDataset', 'MPIIPCKh'))
LESS_IS_BETTER = ('EPE', 'NME')
OTHERS = '*'  # stands for names that are not known


def metric_problems(cfg: Config) -> Iterator[str]:
    """Metrics of one name or of another dataset, metrics that something waits for, wrong rules."""
    for split in ('val', 'test'):
        taken: dict[str, str] = {}
        for place, (prefix, names) in _computed(cfg, split).items():
            for name in sorted(names - {OTHERS}):
                first = taken.setdefault(prefix + name, place)
                if first != place:
                    yield f"{first} and {place} both compute {prefix + name}; give one a prefix='mmpose'."
        kinds = {*_kinds(cfg, f'{split}(_dataloader{DATASET}|{METRIC})').values()}
        for dataset, metric in PIXEL_OFF:
            if {dataset, metric} <= kinds:
                yield (
                    f'{split}_evaluator: {metric} is a pixel off with {dataset}; use MPIIPCKh with '
                    'MPIIPoseDataset, or MpiiPCKAccuracy with MpiiDataset.'
                )
    computed = {name for _, names in _computed(cfg, 'val').values() for name in names}
    for place, setting, name, rule in _monitors(cfg):
        if computed and not {name, OTHERS} & {*computed, 'auto'}:
            yield (
                f'{place}.{setting} is {name!r}, but val_evaluator computes {", ".join(sorted(computed))}; '
                'give one of them.'
            )
        if name == 'auto' and len(computed) == 1:
            (name,) = computed
        better = 'less' if name in LESS_IS_BETTER else 'greater'
        if name in {*computed, *LESS_IS_BETTER} and rule and rule != better:
            yield f'{place}.rule is {rule!r}, which keeps the worst {name}; set rule={better!r}.'


def _kinds(cfg: Config, pattern: str) -> dict[str, str]:
    """The names of classes by place, without scope or module."""
    kinds = {place: part.get('type') for place, part in parts_of(cfg, pattern).items()}
    return {place: str(getattr(kind, '__name__', kind)).rpartition('.')[2] for place, kind in kinds.items()}


def _computed(cfg: Config, split: str) -> dict[str, tuple[str, set[str]]]:
    """The prefix and the names of what each metric of an evaluator computes."""
    datasets = parts_of(cfg, f'{split}_dataloader' + DATASET).values()
    metrics = parts_of(cfg, split + METRIC)
    computed = {}
    for place, kind in _kinds(cfg, split + METRIC).items():
        metric = metrics[place]
        names = {*COMPUTED.get(kind, [OTHERS])}
        if kind == 'PCKAccuracy':
            items = metric.get('norm_item') or ['bbox']
            names = {NORM_ITEMS[item] for item in ([items] if isinstance(items, str) else items)}
        if kind == 'MPIIPCKh' and (metric.get('groups') or any(part.get('metainfo') for part in datasets)):
            names = {'Mean', 'Mean@0.1', 'AUC', OTHERS}  # and columns of other joints
        prefix = metric.get('prefix') or ('coco' if kind == 'CocoMetric' else '')
        computed[place] = (f'{prefix}/' if prefix else '', names)
    return computed


def _monitors(cfg: Config) -> Iterator[tuple[str, str, str, str | None]]:
    """What waits for a metric: its place and setting, the name of the metric without prefix, and the rule."""
    checkpoint = parts_of(cfg, r'default_hooks\.checkpoint')
    for place, part in {**checkpoint, **parts_of(cfg, r'(custom_hooks|param_scheduler)(\.\d+)?')}.items():
        setting = 'save_best' if place in checkpoint else 'monitor'
        names, rules = part.get(setting) or [], part.get('rule')
        names = [names] if isinstance(names, str) else names
        if rules is None and 'ReduceOnPlateau' in str(part.get('type')):
            rules = 'less'  # MMEngine's default
        for name, rule in zip(names, rules if isinstance(rules, list) else [rules] * len(names)):
            yield place, setting, name.rpartition('/')[2], rule
