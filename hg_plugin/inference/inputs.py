"""What keypoints are found in: image and video files, folders of them, cameras and streams."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, count
from os import PathLike
from pathlib import Path

from hg_plugin.utils.errors import InputError

# looked for in folders; a file that is named itself may be any image that OpenCV can decode
IMAGE_SUFFIXES = tuple(
    '.avif .bmp .dib .gif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .ras .tif .tiff .webp'.split()
)
# not by way of mimetypes, which differs from one machine to the next
VIDEO_SUFFIXES = tuple('.3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .ts .webm .wmv'.split())
# folders of results
RESULTS = ('predictions', 'visualizations', 'heatmaps')

# a file, or the number of a camera or the address of a stream
Source = Path | str


def find_inputs(
    inputs: str | PathLike | Sequence[str | PathLike], out_dir: str | PathLike | None = None
) -> list[Source]:
    """Return the files that ``inputs`` name, each once, and cameras and streams as they are.

    A folder stands for its images and videos and those of its sub-folders, sorted, without hidden ones and
    without earlier results. Other files in it are counted in a line on stderr. A number that is no file is a
    camera; text with ``://`` is a stream.

    Args:
        inputs: One or several paths, cameras or streams.
        out_dir: The folder of the results, which may be in a folder of images. Defaults to None.

    Raises:
        InputError: If one does not exist, is a folder without images or videos, or is a result.
    """
    results = {Path(out_dir, name).resolve() for name in RESULTS} if out_dir is not None else set()
    found = {}
    for text in map(str, [inputs] if isinstance(inputs, (str, PathLike)) else inputs):
        path = Path(text)
        if is_stream(text) and not path.exists():
            found.setdefault(text, text)
            continue
        if path.is_dir():
            files, others = [], Counter()
            for file in map(Path, files_below(str(path), results)):
                suffix = file.suffix.lower()
                if suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES and suffix != '.ts':  # also TypeScript's
                    files.append(file)
                else:
                    others[suffix or file.name] += 1
            if others:
                kinds = ', '.join(f'{count} {suffix}' for suffix, count in sorted(others.items()))
                print(f'{path}: left out {kinds}, which are not read here', file=sys.stderr)
        else:
            files = [path] if path.exists() else []
        if not files:
            problem = 'is a folder without images' if path.is_dir() else 'does not exist'
            raise InputError(
                f'{path} {problem}; give images, videos, folders of them, a camera such as 0, or a stream.'
            )
        for file in files:
            if results & {*file.resolve().parents}:
                raise InputError(
                    f'{file} is in a folder of the results, which could overwrite it; '
                    f'choose another output folder than {out_dir}.'
                )
            found.setdefault(file.resolve(), file)
    return list(found.values())


def files_below(folder: str, skipped: Collection[Path] = ()) -> Iterator[str]:
    """The paths of files, sorted by folder, without hidden ones and those in folders of ``skipped``."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith('.') and not (skipped and Path(parent, name).resolve() in skipped)
        )
        yield from (os.path.join(parent, name) for name in sorted(files) if not name.startswith('.'))


def is_stream(source: Source) -> bool:
    """Whether this is the number of a camera or the address of a stream."""
    return isinstance(source, str) and (source.isdecimal() or '://' in source)


def is_video(source: Source) -> bool:
    """Whether this has frames: a stream, or a video file by its name."""
    return is_stream(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES


def address_of(source: Source) -> str:
    """The path in full, or the address of a stream, without a password."""
    return re.sub('//[^/@]*@', '//', source) if is_stream(source) else str(Path(source).resolve())


def stem_of(source: Source) -> str:
    """Its name without extension; of a stream, without its host, which may come with a password."""
    if not is_stream(source):
        return Path(source).stem
    if source.isdecimal():
        return f'camera{source}'
    return Path(re.sub(r'[^\w.-]+', '_', re.split('[?#]', source)[0].rstrip('/').split('/')[-1])).stem


def output_names(inputs: Sequence[Source], out_dir: str | PathLike) -> dict[Source, str]:
    """Name the results of each input: its name without extension, as in MMPose.

    Where that is taken, here or in ``out_dir`` by results of another input, the folder's name goes before it;
    where that is taken too, a number behind it.
    """
    names, taken = {}, set()
    for source in inputs:
        stem = stem_of(source)
        folder = [] if is_stream(source) else [f'{Path(source).absolute().parent.name}_{stem}']
        candidates = chain([stem], folder, (f'{stem}_{number}' for number in count(2)))
        known = (None, address_of(source))
        names[source] = next(
            name
            for name in candidates
            if name not in taken and _input_of(Path(out_dir, 'predictions', f'{name}.json')) in known
        )
        taken.add(names[source])
    return names


def _input_of(predictions: Path) -> str | None:
    """The input that a file of results names, if it does: MMPose's format has none."""
    try:
        with open(predictions, 'rb') as file:
            found = re.match(rb'\{"(?:image|video)": ("(?:[^"\\]|\\.)*")', file.read(2**16))
        return json.loads(found[1]) if found else None
    except (OSError, ValueError):
        return None
