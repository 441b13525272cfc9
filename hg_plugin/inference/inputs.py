"""What tools/infer.py is given: which files, whose boxes, and what their results are called."""

import json
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from hg_plugin.utils.errors import InputError

# what is looked for in folders; of what is named itself, any picture that OpenCV can decode will do
PICTURE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
# what is read as a video; not by way of mimetypes, which knows more or fewer of them from one machine to the next
VIDEO_SUFFIXES = (
    '.3gp',
    '.avi',
    '.flv',
    '.m4v',
    '.mkv',
    '.mov',
    '.mp4',
    '.mpeg',
    '.mpg',
    '.ts',
    '.webm',
    '.wmv',
)


def find_inputs(inputs: Sequence[str]) -> list[Path]:
    """The files that ``inputs`` name: themselves, or a folder's pictures, sorted. None comes twice.

    Raises:
        InputError: where there is nothing of a name, and for a folder without pictures.
    """
    found = {}
    for name in inputs:
        path = Path(name)
        if not str(name):
            raise InputError('The name of an input is empty; give pictures, folders of pictures or videos.')
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
            if not files:
                raise InputError(
                    f'The folder {path} holds no pictures ({", ".join(PICTURE_SUFFIXES)}); give another.'
                )
        elif path.exists():
            files = [path]
        else:
            raise InputError(f'{path} does not exist; give pictures, folders of pictures or videos.')
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_boxes(path: str, inputs: Sequence[Path]) -> dict[Path, list]:
    """Reads a JSON object that maps names of pictures to their persons' boxes.

    Args:
        path: The file: ``{"a.jpg": [[left, top, right, bottom], ...], ...}``, in pixels. A name is a path as in
            ``inputs``, or its last part.
        inputs: The pictures and videos.

    Returns:
        The boxes of those inputs that the file names; whether they are right, only :func:`check_boxes` can tell.

    Raises:
        InputError: for a file that cannot be read, is no such object, or names none of the inputs.
    """
    try:
        boxes = json.loads(Path(path).read_text())
    except OSError as error:
        raise InputError(f'The boxes {path} cannot be read: {error.strerror}.') from error
    except ValueError as error:
        raise InputError(f'The boxes {path} are no JSON file, or were cut off ({error}).') from error
    if not isinstance(boxes, dict) or not all(isinstance(value, list) for value in boxes.values()):
        raise InputError(
            f'The boxes {path} are no object that maps names of pictures to lists of boxes; write '
            '{"a.jpg": [[left, top, right, bottom]]}.'
        )
    found = {file: boxes[name] for file in inputs for name in (file.name, str(file)) if name in boxes}
    if not found:
        raise InputError(
            f'The boxes {path} are of none of the inputs; they name {", ".join([*boxes][:3]) or "nothing"}.'
        )
    return found


def output_names(inputs: Sequence[Path]) -> dict[Path, str]:
    """What each input's results are called: its name without extension, as with MMPose.

    Where that is taken, its folder's name comes before it, and where that is taken too, a number behind it.
    """
    names, taken = {}, set()
    for path in inputs:
        candidates = chain(
            [path.stem, f'{path.absolute().parent.name}_{path.stem}'],
            (f'{path.stem}_{number}' for number in count(2)),
        )
        names[path] = next(name for name in candidates if name not in taken)
        taken.add(names[path])
    return names
