"""What a program runs on, for bug reports and records of runs."""

import platform
import subprocess
from importlib import metadata
from os import PathLike

import torch

from hg_plugin.compat.mmpose import stood_in

PACKAGES = (
    *('mmengine', 'mmcv', 'mmcv-lite', 'mmpose', 'mmdet', 'torchvision', 'numpy', 'scipy', 'xtcocotools'),
    *('pycocotools', 'opencv-python', 'opencv-python-headless', 'opencv-contrib-python'),
)


def describe() -> dict[str, str]:
    """Versions of what is installed, slim or full, placeholders and devices, as text by heading."""
    report = {'Python': f'{platform.python_version()} on {platform.platform()}', 'torch': torch.__version__}
    installed = {own.metadata['Name'].lower(): own.version for own in metadata.distributions()}
    report |= {name: installed[name] for name in PACKAGES if name in installed}
    report['set-up'] = 'slim' if stood_in else 'full'
    report |= {f'replaced: {module}': reason for module, reason in stood_in.items()}
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        report[f'GPU {index}'] = f'{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}'
    if not torch.cuda.is_available():
        report['GPU'] = 'none that torch can use'
    report['CPU threads'] = str(torch.get_num_threads())
    return report


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the CPU with its number of threads."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads'


def git_state(folder: str | PathLike) -> str:
    """The commit of the git repository that holds a folder, with ``-dirty`` where files have changed."""
    command = ['git', '--no-optional-locks', 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*']
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return 'no repository'
