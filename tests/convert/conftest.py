import tarfile
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def torch7(tmp_path_factory):
    """A folder of small Torch7 files, as Torch7 and nngraph write the networks of Newell's training code; and
    what each gives for the image of :func:`test_networks`, computed module by module: every other pixel of
    the heatmaps (stacks, keypoints, 8, 8).

    Weights take five values, so that the archive is small. What wrote it, tests/convert/torch7_files.py, is
    in the history of this repository.
    """
    pytest.importorskip('torchfile', reason='the package torchfile is not installed')
    folder = tmp_path_factory.mktemp('torch7')
    with tarfile.open(Path(__file__).with_name('torch7.tar.xz')) as archive:
        archive.extractall(folder, filter='data')
    return folder
