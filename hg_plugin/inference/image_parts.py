"""Very many images, in parts that depend on nothing but their list, decoded by a pool of processes."""

import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice
from os import PathLike

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hg_plugin.engine.resume.processes import serve_parent
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import ImageError, decode, read_regular_file
from hg_plugin.utils.progress import init_worker

from .boxes import check_boxes
from .inputs import IMAGE_SUFFIXES, files_below

TAR_SUFFIXES = ('.tar', '.tar.gz', '.tgz')
# of a damaged tar
TAR_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error)


# its number, and the images or the one tar in it
Part = tuple[int, list[str]]


def list_images(inputs: str | PathLike | Sequence[str | PathLike]) -> list[str]:
    """The paths of images and tars that the inputs name; those in a folder sorted, without hidden ones.

    Args:
        inputs: Images, tars, folders of both, and ``.txt`` files that name both, one a line. Whether the
            files that a list names exist is not looked at.

    Raises:
        InputError: An input does not exist, cannot be read, or names no image.
    """
    found = []
    for source in map(str, [inputs] if isinstance(inputs, (str, PathLike)) else inputs):
        before = len(found)
        if os.path.isdir(source):
            suffixes = IMAGE_SUFFIXES + TAR_SUFFIXES
            found += [path for path in files_below(source) if path.lower().endswith(suffixes)]
        elif source.lower().endswith('.txt'):
            text = read_regular_file(source).decode('utf-8', 'surrogateescape')
            found += [line.strip() for line in text.splitlines() if line.strip()]
        elif os.path.exists(source):
            found.append(source)
        if len(found) == before:
            problem = 'names no images' if os.path.exists(source) else 'does not exist'
            raise InputError(f'{source} {problem}; give images, folders, tars, or .txt files that name them.')
    return found


def make_parts(sources: Sequence[str], images_per_part: int) -> list[Part]:
    """So many images in a row, or a tar, are a part."""
    parts = []
    for are_tars, group in groupby(sources, _is_tar):
        alike, size = list(group), 1 if are_tars else images_per_part
        for start in range(0, len(alike), size):
            parts.append((len(parts), alike[start : start + size]))
    return parts


def count_images(parts: Sequence[Part]) -> int:
    """How many there are; those in tars estimated by the sizes of the tars and the images in the first."""
    tars = [source for _, sources in parts for source in sources if _is_tar(source)]
    count = sum(len(sources) for _, sources in parts) - len(tars)
    sizes = [os.path.getsize(tar) for tar in tars if os.path.exists(tar)]
    in_first = sum(1 for _ in _members(tars[0])) if sizes else 0
    return count + (in_first * sum(sizes) // max(1, sizes[0]) if sizes else 0)


def division(shard: str | None = None) -> tuple[int, int]:
    """Which of how many shares of the parts this process does.

    Args:
        shard: 'I/N', with I from 0 to N - 1. Defaults to None: the rank that torchrun or Slurm's srun gives
            this process, or 0/1.

    Raises:
        InputError: It is not such a text.
    """
    variables = ('RANK', 'WORLD_SIZE'), ('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS')
    ranks = ['/'.join(map(os.environ.get, names)) for names in variables if {*names} <= os.environ.keys()]
    text = shard or (ranks or ['0/1'])[0]
    index, _, count = text.partition('/')
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise InputError(f'The shard is {text}; give I/N with I from 0 to N - 1, such as 0/2 and 1/2.')
    return int(index), int(count)


def local_device() -> str | None:
    """The GPU of this process, by its rank on this machine; None without ranks or GPUs."""
    rank = os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID'))
    if rank is None or not torch.cuda.is_available():
        return None
    return f'cuda:{int(rank) % torch.cuda.device_count()}'


def load_images(parts: Sequence[Part], workers: int) -> DataLoader:
    """Decode images in processes, ahead of their use.

    Yields:
        Number of the part, name, and what :func:`decode_or_reason` returns, in order.
    """
    return DataLoader(
        _Images(parts),
        batch_size=None,
        collate_fn=tuple,  # not into tensors, which take shared memory, of which containers have little
        num_workers=workers,
        worker_init_fn=_start_worker,
    )


def _start_worker(*_) -> None:
    init_worker()
    serve_parent()  # images that nobody fetches would keep it after a kill


def decode_or_reason(name: str, read: Callable[[], bytes]) -> np.ndarray | str:
    """An image (H, W, 3), BGR, or the reason why it cannot be used."""
    try:
        image = decode(read(), name)
        check_boxes(None, image)  # whether it is too large
        return image
    except (ImageError, *TAR_ERRORS) as error:
        return str(error) if name in str(error) else f'{name} cannot be used: {error}'


class _Images(IterableDataset):
    """Each of W workers decodes every Wth image, of which the loader keeps the order."""

    def __init__(self, parts: Sequence[Part]):
        self.parts = parts

    def __iter__(self) -> Iterator[tuple[int, str, np.ndarray | str]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        items = (
            (number, *item)
            for number, sources in self.parts
            for source in sources
            for item in (
                _members(source) if _is_tar(source) else [(source, partial(read_regular_file, source))]
            )
        )
        for number, name, read in islice(items, first, None, step):
            yield number, name, decode_or_reason(name, read)


def _is_tar(source: str) -> bool:
    return source.lower().endswith(TAR_SUFFIXES)


def _members(path: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The names of the images in a tar, and functions that read them; the tar itself where it is damaged."""
    problem = 'it has no images'

    def fail() -> bytes:
        raise ImageError(problem)

    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(IMAGE_SUFFIXES):
                    problem = ''
                    yield f'{path}/{member.name}', lambda member=member: tar.extractfile(member).read()
    except TAR_ERRORS as error:
        problem = str(error)
    if problem:
        yield path, fail
