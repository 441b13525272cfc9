"""The report for bugs."""

import platform
from importlib import metadata

import torch

from hg_plugin.compat.mmpose import stood_in

PACKAGES = [
    ('mmengine',),
    ('mmcv', 'mmcv-lite'),
    ('mmpose',),
    ('mmdet',),
    ('torchvision',),
    ('numpy',),
    ('opencv-python-headless', 'opencv-python', 'opencv-contrib-python'),
    ('xtcocotools',),
    ('scipy',),
]


def describe() -> dict[str, str]:
    """Versions, slim or full, placeholders and devices, as text by heading."""
    report = {
        'Python': f'{platform.python_version()} on {platform.platform()}',
        'torch': torch.__version__,
    }
    installed = {
        distribution.metadata['Name'].lower(): distribution for distribution in metadata.distributions()
    }
    for packages in PACKAGES:
        found = [f'{installed[name].version} ({name})' for name in packages if name in installed]
        report[packages[0].replace('-python-headless', '')] = ', '.join(found) or 'not installed'
    report['set-up'] = 'slim' if stood_in else 'full'
    report.update({f'replaced: {module}': reason for module, reason in stood_in.items()})
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        report[f'GPU {index}'] = f'{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}'
    if not torch.cuda.is_available():
        report['GPU'] = 'none that torch can use'
    report['CPU threads'] = str(torch.get_num_threads())
    return report
