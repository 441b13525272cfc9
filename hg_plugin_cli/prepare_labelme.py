"""Make a dataset to fine-tune on from annotations of labelme.

The label of a point is the name of a keypoint. Points and a rectangle with one group_id are a person; points
without one belong to the rectangle around them or, where there is none, to the only person of the image.

hg_plugin prepare labelme export data/mine
hg_plugin finetune data/mine
"""

from functools import partial

from .arguments import add_export as add_arguments  # noqa: F401
from .arguments import prepare_export

run = partial(prepare_export, 'labelme')
