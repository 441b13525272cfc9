"""Make a dataset to fine-tune on from annotations of Ultralytics' pose networks.

The export is a folder with data.yaml (kpt_shape, and kpt_names and flip_idx where they are known), labels/
and images/.

hg_plugin prepare yolo-pose export data/mine
hg_plugin finetune data/mine
"""

from functools import partial

from .arguments import add_export as add_arguments  # noqa: F401
from .arguments import prepare_export

run = partial(prepare_export, 'yolo-pose')
