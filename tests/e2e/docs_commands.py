"""The commands of README and docs."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']
PAGES += [*sorted(ROOT.glob('docs/*.md')), *sorted(ROOT.glob('projects/*/README.md'))]


def blocks(page: Path, *languages: str) -> list[str]:
    return [
        text
        for language, text in re.findall(r'^```(\w*)\n(.*?)^```', page.read_text(), re.S | re.M)
        if language in languages
    ]


def commands(page: Path) -> list[list[str]]:
    """Words of the commands of a page, without comments and variables before them."""
    lines = '\n'.join(blocks(page, '', 'bash', 'sh')).replace('\\\n', ' ').splitlines()
    lines = [line for line in lines if re.match(r'([A-Z_]+=\S+ )*(python|hg_plugin|make|tools/)\b', line)]
    words = [shlex.split(re.sub(r'\s# .*', '', line)) for line in lines]
    return [[word for word in line if not re.match(r'[A-Z_]+=', word)] for line in words]


def write_files(page: Path, folder: Path) -> None:
    """Writes the blocks of Python of a page that begin with the name of a file, such as '# my_loss.py'."""
    for text in blocks(page, 'python'):
        name = re.match(r'# (\w+\.py)\n', text)
        if name:
            (folder / name[1]).write_text(text)
