"""Make a dataset to fine-tune on from annotations of the layout of COCO.

A JSON file whose categories name the keypoints, as CVAT, Roboflow and COCO Annotator write it.

hg_plugin prepare coco export/instances.json data/mine --images photographs
hg_plugin finetune data/mine
"""

from functools import partial

from .arguments import add_export as add_arguments  # noqa: F401
from .arguments import prepare_export

run = partial(prepare_export, 'coco')
