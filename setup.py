"""Installs the plugin into an environment that already holds MMPose, and changes nothing there.

That is why NumPy is all it requires. pip walks through the requirements of a requirement that is already met, so that
naming mmengine or mmpose here would install opencv-python beside a headless OpenCV, torchvision, and chumpy, which does
not build.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

setup(
    name='hg_plugin',
    version=re.search(r"^__version__ = '(.+)'$", (ROOT / 'hg_plugin/__init__.py').read_text(), re.MULTILINE)[
        1
    ],
    description='Stacked hourglass networks for human pose estimation: a plugin for MMPose',
    license='Apache-2.0',
    python_requires='>=3.10',
    install_requires=['numpy'],
    packages=find_packages(include=['hg_plugin', 'hg_plugin.*']),
    # .mim holds links to configs/ and tools/, and a wheel the files: hg_plugin::hg_2stack_mpii.py is found in both
    package_data={
        'hg_plugin': [
            'prepare/mpii_val.txt',
            '.mim/*.yml',
            '.mim/configs/*.py',
            '.mim/configs/*/*.py',
            '.mim/tools/*.py',
            '.mim/tools/*.sh',
        ]
    },
    zip_safe=False,
)
