"""Install the plugin into an environment that already holds MMPose, and change nothing there.

That is why NumPy is the only requirement. pip also checks what an installed requirement requires:
naming mmengine or mmpose here would install opencv-python beside a headless OpenCV, torchvision, and chumpy,
which does not build.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r"^__version__ = '(.+)'$", (ROOT / 'hg_plugin/__init__.py').read_text(), re.MULTILINE)

setup(
    name='hg_plugin',
    version=VERSION[1],
    description='Stacked hourglass networks for human pose estimation: a plugin for MMPose',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='pose estimation, keypoints, stacked hourglass, MPII, PCKh, MMPose, OpenMMLab',
    project_urls={
        'Paper': 'https://arxiv.org/abs/1603.06937',
        'MMPose': 'https://github.com/open-mmlab/mmpose',
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Intended Audience :: Developers',
        'Operating System :: POSIX :: Linux',
        'Operating System :: MacOS',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    python_requires='>=3.10',
    install_requires=['numpy'],
    extras_require=dict(
        detect=['rtmlib', 'onnxruntime'],  # hg_plugin infer --det-onnx
        parquet=['pyarrow'],  # hg_plugin infer --out people.parquet
        ray=['ray[data]'],  # examples/ray_data.py
        report=['plotly'],
        serve=['gradio>=6.16,<7', 'gradio_image_annotation>=0.5.6,<0.6'],
    ),
    packages=find_packages(include=['hg_plugin', 'hg_plugin.*', 'hg_plugin_cli']),
    # .mim holds links to configs/ and tools/ here, and the files in a wheel: hg_plugin::NAME is found in both
    package_data={
        'hg_plugin': [
            'py.typed',
            'prepare/mpii_val.txt',
            'weights/*',
            '*/*.html',
            '.mim/*.yml',
            '.mim/configs/*.py',
            '.mim/configs/*/*.py',
            '.mim/configs/*/*/*.py',
            '.mim/tools/*.py',
            '.mim/tools/*.sh',
        ]
    },
    entry_points=dict(console_scripts=['hg_plugin = hg_plugin_cli:main']),
    zip_safe=False,
)
