"""Every figure that needs a GPU, by one command that ends in time: a training step's profile, tests, training
rate, a real training, inference, an epoch's breakdown.

    python benchmarks/gpu.py --minutes 9 --out DIR
    python benchmarks/gpu.py --dry-run --minutes 3 --out DIR    # every step in miniature, on a CPU

The steps run in the order of their worth, each in a process of its own. Its table, its raw figures and what
it printed are in DIR while it runs; one that fails, or exceeds its time, is noted with its last lines and
passed over. Time that a step does not need is the next one's. ``summary.md`` and ``summary.json`` in DIR hold
the goals, what was measured, and whether it was met; see docs/gpu.md.
"""

import argparse
import contextlib
import ctypes
import os
import os.path as osp
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from gpu_summary import write_summary

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
words = shlex.split
RESERVE = 6  # seconds at the end, to kill and to write


class Step(NamedTuple):
    """A step: its command, without files and time, and its share of the whole time.

    Args:
        name: Of its files, behind its number.
        title: For the reader.
        share: Of the time.
        command: Benchmark and options; '{seconds}' stands for the step's time, '{weights}' for a file in DIR,
            '{cache}' for torch.compile's cache.
        beside: Commands that fill that cache meanwhile. The step ends when they have, too, or its share is
            over.
    """

    name: str
    title: str
    share: float
    command: list[str]
    beside: list[list[str]] = []


def gpu_steps(workers: int, data: list[str]) -> list[Step]:
    """What is measured on a GPU. Compilations take a minute each; some run beside the tests, where they
    disturb no measurement.
    """
    compile_training = words(
        'train.py --networks 2-compiled --batch 128 --steps 1 --rounds 1 --warmup 0 --compile-cache {cache}'
    )
    training_rate = words(
        'train.py --batch 32 128 --rounds 3 --round-seconds 0.8 --warmup 3 --steps 40 --limit 40 '
        '--compile-cache {cache} --networks 2-fast,hourglass52,2-compiled,hourglass52-amp,2-graphs,2-float32,'
        '2-eager,8-fast,v1-fast,1-fast,2-cp,8-cp,8-eager,1-eager,v1-eager,v1-cp,1-compiled,8-compiled'
    )
    training = words(
        'one_cycle.py --batch 128 --seconds {seconds} --weights {weights} --end-seconds 20 --workers'
    )
    inference = words('inference.py --one-by-one --rounds 6 --runs 10')
    return [
        Step('profile', "A training step's profile", 60, words('step_profile.py --batch 32')),
        Step('tests', 'Machine and GPU tests', 75, ['machine.py'], [compile_training]),
        Step('training_rate', 'Training rate, synthetic input', 140, training_rate),
        Step('training', 'A real training, LSP extended', 165, [*training, str(workers), *data]),
        Step('inference', 'Inference', 50, inference),
        Step('epoch', "An epoch's breakdown", 45, ['epoch.py', '--workers', str(workers), *data]),
    ]


def miniature_steps(persons: str) -> list[Step]:
    """The same on a CPU, with networks of a few channels, on synthetic persons."""
    cpu = words('--device cpu --threads 1 --miniature')
    data = ['--data-root', persons, *words('--workers 0 --miniature')]
    tests = words("machine.py --tests 'not slow' --keywords 'agrees and cpu-None' --processes 1")
    training_rate = words(
        'train.py --batch 1 --steps 1 --rounds 1 --round-seconds 0.2 --warmup 0 --limit 60 '
        '--compile-cache {cache} --networks 2-fast,hourglass52'
    )
    training = words(
        'one_cycle.py --seconds {seconds} --train-seconds 3 --end-seconds 5 --rate-seconds 0.3 --warmup 0 '
        '--batch 4 --weights {weights}'
    )
    inference = words('inference.py --gpu-ways --one-by-one --rounds 1 --runs 1 --batches 1 2')
    ways = words(
        "--only reparameterized 'reparameterized, bf16, channels_last' 'reparameterized, CUDA graphs' "
        '"MMPose\'s hourglass52, eager"'
    )
    step_profile = words('step_profile.py --batch 1 --steps 2 --warmup 12')
    return [
        Step('profile', "A training step's profile", 40, [*step_profile, *cpu]),
        Step('tests', 'Machine and GPU tests', 25, tests),
        Step('training_rate', 'Training rate, synthetic input', 50, [*training_rate, *cpu]),
        Step('training', 'A real training, synthetic persons', 35, [*training, *data]),
        Step('inference', 'Inference', 25, [*inference, *cpu, *ways]),
        Step('epoch', "An epoch's breakdown", 25, ['epoch.py', *data]),
    ]


def adopt_orphans() -> None:
    """Makes this process the parent of processes whose own parent ends, so that :func:`descendants` knows
    them; on Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def descendants() -> list[int]:
    """Every process that this one or its children started, in whatever group or session."""
    children = {}
    for entry in filter(str.isdigit, os.listdir('/proc') if osp.isdir('/proc') else []):
        with contextlib.suppress(OSError, IndexError, ValueError), open(f'/proc/{entry}/stat') as file:
            parent = int(file.read().rpartition(')')[2].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found = [os.getpid()]
    for process in found:
        found += children.get(process, [])
    return found[1:]


def kill_all(processes: list[subprocess.Popen]) -> None:
    """Kills the groups of ``processes``, and all else that they have started."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for _ in range(5):  # what a process starts while it is being killed
        left = descendants()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            return
        time.sleep(0.05)


def last_lines(path: str, number: int = 15) -> str:
    with open(path, errors='replace') as file:
        return ''.join(file.readlines()[-number:]).rstrip()


class Runs:
    """Runs steps whose files go to ``out``; ``cache`` is a folder for torch.compile's."""

    def __init__(self, out: str, cache: str, dry_run: bool):
        self.out, self.cache = out, cache
        self.env = {
            **os.environ,
            'TORCHINDUCTOR_CACHE_DIR': cache,
            'TRITON_CACHE_DIR': osp.join(cache, 'triton'),
            'PYTHONPATH': os.pathsep.join(filter(None, (ROOT, os.environ.get('PYTHONPATH')))),
            'PYTHONUNBUFFERED': '1',
        }
        if dry_run:
            self.env.update(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')

    def start(self, command: list[str], files: str, seconds: float, log) -> subprocess.Popen:
        values = dict(
            seconds=f'{seconds:.0f}', weights=osp.join(self.out, 'hg_2stack_lspet_half.pth'), cache=self.cache
        )
        script, *options = [word.format(**values) if word.startswith('{') else word for word in command]
        return subprocess.Popen(
            [
                sys.executable,
                osp.join(ROOT, 'benchmarks', script),
                *options,
                '--raw',
                f'{files}.jsonl',
                '--out',
                f'{files}.md',
            ],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, number: int, step: Step, seconds: float, share: float) -> dict:
        """Runs a step for at most so many seconds, of which ``share`` are its own; returns its number, name,
        outcome and time."""
        files = osp.join(self.out, f'{number}_{step.name}')
        start, processes, note = time.monotonic(), [], None
        with contextlib.ExitStack() as stack:
            try:
                log = stack.enter_context(open(f'{files}.log', 'w'))
                processes.append(self.start(step.command, files, seconds - 8, log))
                for index, command in enumerate(step.beside, 1):
                    beside = f'{files}_compiling{index}'
                    processes.append(
                        self.start(command, beside, seconds, stack.enter_context(open(f'{beside}.log', 'w')))
                    )
                code = processes[0].wait(timeout=seconds)
                note = f'failed with exit code {code}' if code else None
                for process in processes[1:]:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=max(0, min(share, seconds) - (time.monotonic() - start)))
            except subprocess.TimeoutExpired:
                note = f'stopped by its time limit of {seconds:.0f} s'
            finally:
                kill_all(processes)
        if note:
            with open(f'{files}.md', 'a') as file:
                file.write(
                    f'\n**{step.title}: {note}.** What stands above was measured before. The last lines:\n\n'
                    f'```\n{last_lines(f"{files}.log")}\n```\n'
                )
        return dict(
            number=number,
            step=step.name,
            title=step.title,
            outcome=note or 'done',
            seconds=round(time.monotonic() - start, 1),
        )


def run_steps(
    steps: list[Step], out: str, minutes: float, dry_run: bool, chosen: list[int] | None = None
) -> None:
    """Runs the steps, or those whose numbers are ``chosen``, and writes all files, within so many minutes."""
    started = time.monotonic()
    whole = 60 * minutes - RESERVE
    steps = [(number, step) for number, step in enumerate(steps, 1) if not chosen or number in chosen]
    scale = whole / sum(step.share for _, step in steps)
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the steps' processes are killed
    os.makedirs(out, exist_ok=True)
    ended = []
    with tempfile.TemporaryDirectory() as cache:
        runs = Runs(osp.abspath(out), cache, dry_run)
        for index, (number, step) in enumerate(steps):
            # all that is left but the shares of those to come
            seconds = (
                started
                + whole
                - time.monotonic()
                - scale * sum(other.share for _, other in steps[index + 1 :])
            )
            print(f'{number}. {step.title}: at most {seconds:.0f} s ...', flush=True)
            if seconds < 1:
                ended.append(
                    dict(
                        number=number,
                        step=step.name,
                        title=step.title,
                        outcome='not started, for want of time',
                        seconds=0.0,
                    )
                )
            else:
                ended.append(runs.run(number, step, seconds, scale * step.share))
            print(f'   {ended[-1]["outcome"]}, after {ended[-1]["seconds"]:.0f} s', flush=True)
            write_summary(out, ended, started, dry_run)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--minutes', type=float, default=9, help='that the whole takes at most (default: %(default)s)'
    )
    parser.add_argument('--out', required=True, help='folder for tables, raw figures and weights')
    parser.add_argument('--steps', type=int, nargs='+', help='only these, by their numbers')
    parser.add_argument(
        '--data-root',
        help="LSP extended in MPII layout (default: in the environment variable HG_DATA, or the config's)",
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=min(16, os.cpu_count() or 1),
        help='of the loaders (default: %(default)s)',
    )
    parser.add_argument('--dry-run', action='store_true', help='every step in miniature, on a CPU')
    args = parser.parse_args()
    if args.minutes * 60 <= RESERVE:
        parser.error(f'--minutes {args.minutes}: give more than {RESERVE} s')
    if args.dry_run:
        with tempfile.TemporaryDirectory() as persons:
            begin = time.monotonic()
            command = f'-m hg_plugin make_synthetic {persons} --train 8 --val 4 --workers 1'.split()
            subprocess.run(
                [sys.executable, *command],
                check=True,
                cwd=ROOT,
                env={**os.environ, 'PYTHONPATH': ROOT + os.pathsep + os.environ.get('PYTHONPATH', '')},
            )
            run_steps(
                miniature_steps(persons),
                args.out,
                args.minutes - (time.monotonic() - begin) / 60,
                True,
                args.steps,
            )
    else:
        root = args.data_root or (
            osp.join(os.environ['HG_DATA'], 'lspet_mpii') if 'HG_DATA' in os.environ else None
        )
        run_steps(
            gpu_steps(args.workers, ['--data-root', root] if root else []),
            args.out,
            args.minutes,
            False,
            args.steps,
        )
    with open(osp.join(args.out, 'summary.md')) as file:
        print(file.read())


if __name__ == '__main__':
    main()
