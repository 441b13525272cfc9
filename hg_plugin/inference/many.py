"""Estimate poses in very many images: a row a person, in files that are whole or absent."""

import hashlib
import io
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from os import PathLike
from pathlib import Path

import numpy as np

from hg_plugin.utils.checkpoint import digest
from hg_plugin.utils.errors import InputError, need_packages
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.json_files import read_json
from hg_plugin.utils.progress import Progress

from .detectors import Detector, boxes_inside
from .image_parts import count_images, division, list_images, load_images, make_parts
from .pose_estimator import PoseEstimator

COLUMNS = tuple('image width height person box box_score keypoints keypoint_scores reason'.split())


def infer_many(
    estimator: PoseEstimator,
    inputs: str | PathLike | Sequence[str | PathLike],
    out: str | PathLike,
    *,
    shard: str | None = None,
    images_per_part: int = 1000,
    workers: int = 2,
    detector: Detector | None = None,
    whole_image: bool = False,
    flip_test: bool = False,
    scales: Sequence[float] = (1.0,),
) -> dict[str, int]:
    """Find the keypoints of persons in very many images, and write a row a person.

    ``out`` is a folder of ``part-00000.jsonl`` or ``.parquet`` and so on, each with the rows of so many
    images or of one tar. A run that was killed goes on with the parts that are not there, and processes
    divide the parts by their numbers. ``_run.json`` says what they are of, and has ``keypoint_names``,
    ``unannotated_keypoints`` and ``skeleton``.

    A row has ``image``, the path, for a member of a tar TAR/MEMBER; ``width`` and ``height``; ``person``, a
    number, the best first; ``box`` (4 numbers), ``box_score``, ``keypoints`` (K, 2) in pixels and
    ``keypoint_scores`` (K). An image without persons has one row, whose ``reason`` is that nobody was found,
    or why the image cannot be read.

    Args:
        estimator: The network.
        inputs: Images; folders; tars in WebDataset's layout, of whose samples the images are taken; and
            ``.txt`` files that name images and tars. See :func:`list_images`.
        out: A name that ends in .jsonl, or in .parquet, which needs pyarrow.
        shard: See :func:`division`.
        images_per_part: Defaults to 1000.
        workers: Processes that decode images. Defaults to 2.
        detector, whole_image: See :func:`hg_plugin.inference.files.infer_files`.
        flip_test, scales: See :meth:`PoseEstimator.__call__`.

    Returns:
        Counts of what this process did: ``parts``, ``images``, ``people``, and images that are ``empty`` or
        ``unread``; and ``before``, the parts that were there.

    Raises:
        InputError: An input does not exist, pyarrow is missing, ``out`` holds another run, or cannot be
            written.
    """
    out, options = Path(out), dict(whole_image=whole_image, flip_test=flip_test, scales=[*scales])
    if out.suffix not in WRITERS:
        raise InputError(f'{out}: give a name that ends in .jsonl or .parquet.')
    if out.suffix == '.parquet':
        need_packages(f'{out}', 'pyarrow')
    index, count = division(shard)
    sources = list_images(inputs)
    settings = dict(images_per_part=images_per_part, detector=detector is not None, **options)
    settings |= dict(backend=str(estimator.backend), bfloat16=estimator.bfloat16)
    _check_run(estimator, sources, out, settings)
    own = make_parts(sources, images_per_part)[index::count]
    files = {number: out / f'part-{number:05d}{out.suffix}' for number, _ in own}
    parts = [part for part in own if not files[part[0]].exists()]
    counts = dict(parts=0, before=len(own) - len(parts), images=0, people=0, empty=0, unread=0)
    start = time.monotonic()
    with Progress(count_images(parts), 'images') as progress:
        for number, images in groupby(load_images(parts, workers), itemgetter(0)):
            images = (item[1:] for item in images)
            part = []
            for rows in estimate_rows(estimator, images, detector=detector, **options):
                part += rows
                people = sum(row['reason'] is None for row in rows)
                counts['images'] += 1
                counts['people'] += people
                counts['unread'] += rows[0]['width'] is None
                counts['empty'] += rows[0]['width'] is not None and not people
                speed = counts['images'] / (time.monotonic() - start)
                progress.update(f'{speed:.1f}/s, {counts["people"]} people')
            for partial in out.glob(f'{files[number].name}.*.partial'):  # of a run that was killed
                partial.unlink(missing_ok=True)
            with atomic_write(files[number], synced=True) as file:
                file.write(WRITERS[out.suffix](part))
            counts['parts'] += 1
    return counts


def estimate_rows(
    estimator: PoseEstimator,
    images: Iterable[tuple[str, np.ndarray | str]],
    *,
    detector: Detector | None = None,
    **options,
) -> Iterator[list[dict]]:
    """Yield the rows of each image, see :func:`infer_many`.

    Args:
        estimator: The network.
        images: Names, and what :func:`decode_or_reason` returns.
        detector: Finds boxes. Defaults to None: the network does.
        **options: Of :meth:`PoseEstimator.stream`.
    """
    waiting: deque[tuple[str, str | None]] = deque()  # names, and reasons why images cannot be used

    def read():
        for name, image in images:
            if isinstance(image, str):
                waiting.append((name, image))
                yield np.zeros((1, 1, 3), np.uint8), []  # which keeps its place
            else:
                waiting.append((name, None))
                yield image, boxes_inside(detector, image) if detector else None

    for poses in estimator.stream(read(), **options):
        name, reason = waiting.popleft()
        row = dict.fromkeys(COLUMNS) | dict(image=name, reason=reason)
        if reason is None:
            row |= zip(('width', 'height'), poses.image_size)
        persons = [row | dict(person=index) | person for index, person in enumerate(poses.person_dicts())]
        yield persons or [row | dict(reason=reason or 'no person found')]


def _check_run(estimator: PoseEstimator, sources: Sequence[str], out: Path, settings: dict) -> None:
    """Write what the run is of, or check that the parts that are there are of the same."""
    texts = dict(
        images='\n'.join(sources).encode('utf-8', 'surrogateescape'),
        config=estimator.cfg.pretty_text.encode(),
    )
    run = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    run |= dict(weights=digest(str(estimator.checkpoint)), **settings)
    run |= estimator(np.zeros((8, 8, 3), np.uint8), np.zeros((0, 4))).description()
    del run['image_size']
    path = out / '_run.json'  # whose name readers of folders of Parquet pass over
    if not path.exists():
        with atomic_write(path) as file:
            file.write(json.dumps(run, indent=1).encode())
    before = read_json(path, 'what a run is of').value
    changed = [name for name in run if not isinstance(before, dict) or before.get(name) != run[name]]
    if changed:
        raise InputError(f'{out} holds a run with other {", ".join(changed)}; give another --out.')


def _to_jsonl(rows: list[dict]) -> bytes:
    return ''.join(f'{json.dumps(row)}\n' for row in rows).encode()


def _to_parquet(rows: list[dict]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    numbers = pyarrow.list_(pyarrow.float32())
    types = dict(
        image=pyarrow.string(),
        width=pyarrow.int32(),
        height=pyarrow.int32(),
        person=pyarrow.int32(),
        box=numbers,
        box_score=pyarrow.float32(),
        keypoints=pyarrow.list_(numbers),
        keypoint_scores=numbers,
        reason=pyarrow.string(),
    )
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(types)), file)
    return file.getvalue()


# to contents of a file, by its suffix
WRITERS = {'.jsonl': _to_jsonl, '.parquet': _to_parquet}
