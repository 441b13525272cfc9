"""Find people in very many images on a cluster, with Ray Data: pip install .[ray]

python examples/ray_data.py IMAGES PEOPLE [NETWORKS]

IMAGES and PEOPLE are folders, perhaps of a bucket (s3://...). PEOPLE gets Parquet files with the rows of
hg_plugin infer IMAGES --out PEOPLE.parquet. NETWORKS run at the same time, each on a GPU or one CPU core.
"""

import sys
from functools import partial
from itertools import chain

import pandas
import ray
import torch

from hg_plugin.apis import PoseEstimator
from hg_plugin.inference.image_parts import decode_or_reason
from hg_plugin.inference.inputs import IMAGE_SUFFIXES
from hg_plugin.inference.many import estimate_rows

images, people, networks = (*sys.argv[1:], '2')[:3]


class FindPeople:
    """An actor, which loads the network once."""

    def __init__(self):
        self.estimator = PoseEstimator()

    def __call__(self, batch: pandas.DataFrame) -> pandas.DataFrame:
        images = (
            (path, decode_or_reason(path, partial(bytes, data)))
            for path, data in zip(batch['path'], batch['bytes'])
        )
        return pandas.DataFrame(chain.from_iterable(estimate_rows(self.estimator, images)))


suffixes = [suffix[1:] for suffix in IMAGE_SUFFIXES]
(
    ray.data.read_binary_files(images, include_paths=True, file_extensions=suffixes)
    .map_batches(
        FindPeople,
        batch_format='pandas',
        batch_size=64,
        concurrency=int(networks),
        num_cpus=0.5,  # the other half is for those who read and write
        num_gpus=int(torch.cuda.is_available()),
    )
    .write_parquet(people)
)
