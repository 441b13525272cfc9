"""Code bases with published stacked hourglass networks: names of tensors, and how images are normalized."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DEPTH = 4  # of the hourglasses in all code bases


@dataclass(frozen=True)
class Family:
    """A code base with checkpoints of stacked hourglass networks.

    Args:
        title: Name of the code base for readers.
        rules: Regular expressions and replacements that turn, in this order, a name in
            :class:`StackedHourglass` into the code base's. Defaults to ().
        mean: Values subtracted from red, green and blue in [0, 1]. Defaults to (0, 0, 0).
        std: Values that they are divided by then. Defaults to (1, 1, 1).
    """

    title: str
    rules: Sequence[tuple[str, str | Callable]] = ()
    mean: tuple[float, float, float] = (0, 0, 0)
    std: tuple[float, float, float] = (1, 1, 1)

    def rename(self, name: str) -> str:
        """Return the code base's name of a tensor of a :class:`StackedHourglass`."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name


PRINCETON_RULES = [
    (r'^stem_conv\.0\.', 'pre.0.conv.'),
    (r'^stem_conv\.1\.', 'pre.0.bn.'),
    (r'^stem_conv\.3\.0\.', 'pre.1.'),
    (r'^stem_residuals\.0\.', 'pre.3.'),  # pre.2 is the pooling
    (r'^stem_residuals\.1\.', 'pre.4.'),
    (r'^hourglasses\.(\d+)\.', r'hgs.\1.0.'),
    (r'\.inner(\.0)?', '.low2'),
    (r'\.skip\.0\.', '.up1.'),
    (r'\.down\.0\.', '.low1.'),
    (r'\.up\.0\.', '.low3.'),
    (r'^features\.(\d+)\.0\.0\.', r'features.\1.0.'),
    (r'^features\.(\d+)\.1\.0\.', r'features.\1.1.conv.'),
    (r'^features\.(\d+)\.1\.1\.', r'features.\1.1.bn.'),
    (r'^scores\.(\d+)\.', r'outs.\1.conv.'),
    (r'^joins\.(\d+)\.from_features\.', r'merge_features.\1.conv.conv.'),
    (r'^joins\.(\d+)\.from_heatmaps\.', r'merge_preds.\1.conv.conv.'),
    # inside a residual
    (r'\.norm(\d)\.', r'.bn\1.'),
    (r'\.conv(\d)\.', r'.conv\1.conv.'),
    (r'\.skip\.', '.skip_layer.conv.'),
]


def bearpaw_branch(match: re.Match) -> str:
    """Return the name of an hourglass's branch: skip, down, up, or the residuals of the innermost."""
    stack, inner, kind, block = match.groups()
    level = max(DEPTH - 1 - inner.count('inner'), 0)  # counted from the innermost
    return f'hg.{stack}.hg.{level}.{("skip", "down", "up", None).index(kind)}.{block}.'


BEARPAW_RULES = [
    (r'^stem_conv\.0\.', 'conv1.'),
    (r'^stem_conv\.1\.', 'bn1.'),
    (r'^stem_conv\.3\.0\.', 'layer1.0.'),
    (r'^stem_residuals\.0\.', 'layer2.0.'),
    (r'^stem_residuals\.1\.', 'layer3.0.'),
    (r'^hourglasses\.(\d+)\.((?:inner\.)*)(?:(skip|down|up)\.)?(\d+)\.', bearpaw_branch),
    (r'^features\.(\d+)\.0\.', r'res.\1.'),
    (r'^features\.(\d+)\.1\.', r'fc.\1.'),
    (r'^scores\.', 'score.'),
    (r'^joins\.(\d+)\.from_features\.', r'fc_.\1.'),
    (r'^joins\.(\d+)\.from_heatmaps\.', r'score_.\1.'),
    # inside a residual
    (r'\.norm(\d)\.', r'.bn\1.'),
    (r'\.skip\.', '.downsample.0.'),
]


# To add a published checkpoint, describe its code base here.
FAMILIES = dict(
    princeton=Family(title="Princeton's PyTorch code", rules=PRINCETON_RULES),
    bearpaw=Family(title="bearpaw's pytorch-pose", rules=BEARPAW_RULES, mean=(0.4404, 0.4440, 0.4327)),
)
IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# beside the weights in checkpoints of HRNet's trainer, which some forks of bearpaw's network use
HRNET_KEYS = {'perf', 'best_state_dict'}
NORMALIZATIONS = ('imagenet', *FAMILIES)
NEWELL = Family("Newell's Torch7 code")
