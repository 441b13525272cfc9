"""Make a dataset to fine-tune on from annotations of Label Studio, exported as JSON.

The label of a point is the name of a keypoint. It belongs to the rectangle that is its parent in the list of
regions, or around it. Give the uploaded files, or the folder of local storage, with --images.

hg_plugin prepare labelstudio export data/mine
hg_plugin finetune data/mine
"""

from functools import partial

from .arguments import add_export as add_arguments  # noqa: F401
from .arguments import prepare_export

run = partial(prepare_export, 'labelstudio')
