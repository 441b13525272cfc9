"""Make a dataset to fine-tune on from annotations of CVAT, exported as "CVAT for images 1.1".

Each skeleton is a person. Points without a skeleton are named by their labels; those of one group, or in
one box, are a person.

hg_plugin prepare cvat export data/mine
hg_plugin finetune data/mine
"""

from functools import partial

from .arguments import add_export as add_arguments  # noqa: F401
from .arguments import prepare_export

run = partial(prepare_export, 'cvat')
