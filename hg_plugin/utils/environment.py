"""What a program runs on, for bug reports and records of runs."""

import platform
import subprocess
from importlib import metadata
from os import PathLike
from pathlib import Path

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
    ('xtcocotools', 'pycocotools'),
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


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the CPU with its number of threads."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    name, information = platform.processor() or platform.machine(), Path('/proc/cpuinfo')
    for line in information.read_text().splitlines() if information.exists() else ():
        if line.startswith('model name'):
            name = line.partition(':')[2].strip()
            break
    threads = torch.get_num_threads()
    return f'{name}, {threads} thread{"s" if threads > 1 else ""}'


def git_state(folder: str | PathLike) -> str:
    """Commit, branch and changed files of the git repository that holds a folder, or why there are none."""

    def git(*arguments: str) -> str:
        command = ['git', '--no-optional-locks', *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout

    try:
        files = [line[3:] for line in git('status', '--porcelain', '--untracked-files=no').splitlines()]
        changes = f'{len(files)} changed files: {", ".join(files[:12])}' if files else 'no changed file'
        branch = git('rev-parse', '--abbrev-ref', 'HEAD').strip()
        return f'{git("rev-parse", "HEAD")[:12]} on {branch}, {changes}'
    except (OSError, subprocess.SubprocessError):
        return 'no repository'
