r"""How well persons are found without boxes, on the validation set of LSP extended in MPII's layout.

    python benchmarks/find.py data/lspet_mpii [CONFIG CHECKPOINT] [--photographs 500] [--mosaics 200] \
        [--bfloat16] [--backend openvino]

Photographs have one person each, annotated. Mosaics have four: photographs on the quarters of a canvas of
640x480 pixels, each at 0.6 to 1 of its quarter. Backgrounds are the largest parts of photographs beside the
person's box. Prints a Markdown table.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from hg_plugin.apis import PoseEstimator
from hg_plugin.datasets.detected_boxes import iou
from hg_plugin.evaluation import pckh_curves
from hg_plugin.mpii_format import CENTER_SHIFT, PIXELS_A_SCALE, load_annotations, load_ground_truth
from hg_plugin.utils.images import read_image
from hg_plugin.utils.progress import Progress

CANVAS, FOUND = (640, 480), 0.4  # width and height; IoU of a box that is found
MIN_BACKGROUND = 64  # pixels
# photographs that show other persons beside the annotated one, by eye: their backgrounds are none
CROWDED = {
    *map(
        int,
        """
    7 11 18 20 25 27 38 40 56 57 59 61 70 84 90 92 93 97 105 138 172 173 175 181 191 192 197 203 210 211 225
    226 228 233 239 243 244 278 283 286 287 289 301 308 309 319 331 333 335 338 341 344 346 352 362 375 379
    385 386 415 417 426 431 436 439 447 450 451 454 455 460 461 473 478 481 485 493 496
""".split(),
    )
}


class Persons:
    """The validation set: photographs, boxes (N, 4) and what PCKh needs."""

    def __init__(self, folder: Path):
        annotations = load_annotations(folder / 'annotations/mpii_val.json')
        scale = annotations['scale'][:, None]
        center, half = annotations['center'] + [0, CENTER_SHIFT] * scale, PIXELS_A_SCALE / 2 * scale
        self.paths = [folder / 'images' / name for name in annotations['image']]
        self.boxes = np.concatenate([center - half, center + half], axis=1)
        self.truth = load_ground_truth(folder / 'annotations/mpii_gt_val.mat')

    def mean(self, keypoints: np.ndarray, indices) -> float:
        """PCKh@0.5 of keypoints (M, K, 2) of these persons."""
        truth = {key: self.truth[key][indices] for key in ('gt', 'visible', 'head_size')}
        return float(pckh_curves(keypoints, **truth)['Mean'][-1])

    def half_right(self, keypoints: np.ndarray, index: int) -> bool:
        distance = np.linalg.norm(keypoints - self.truth['gt'][index], axis=1)
        visible = self.truth['visible'][index]
        return 2 * (distance[visible] <= self.truth['head_size'][index] / 2).sum() >= visible.sum()


def photographs(estimator: PoseEstimator, persons: Persons, indices: list[int]) -> dict[str, str]:
    given, found, counts, seconds = [], [], [], 0.0
    with Progress(len(indices), 'photographs') as progress:
        for index in indices:
            image, box = read_image(persons.paths[index]), persons.boxes[index]
            given.append(estimator(image, box[None]).keypoints[0])
            start = time.perf_counter()
            poses = estimator(image)
            seconds += time.perf_counter() - start
            overlaps = iou(poses.boxes, box)
            # a miss counts as all wrong
            missed = not overlaps.any()
            found.append(np.full_like(given[-1], np.nan) if missed else poses.keypoints[overlaps.argmax()])
            counts.append(len(poses))
            progress.update()
    with_boxes, without = (persons.mean(np.stack(points), indices) for points in (given, found))
    return {
        'PCKh@0.5 with boxes': f'{with_boxes:.1f}',
        'PCKh@0.5 without boxes': f'{without:.1f} ({without / with_boxes:.3f})',
        'persons a photograph of one': f'{np.mean(counts):.2f}',
        'photographs without a person': f'{np.mean(np.equal(counts, 0)):.1%}',
        'seconds a photograph': f'{seconds / len(indices):.2f}',
    }


def mosaic(persons: Persons, rng: np.random.Generator) -> tuple[np.ndarray, list]:
    """A canvas, and (index, scale, shift) of the four persons on it."""
    width, height = CANVAS[0] // 2, CANVAS[1] // 2
    canvas, placed = np.full((CANVAS[1], CANVAS[0], 3), 127, np.uint8), []
    for quarter, index in enumerate(rng.choice(len(persons.paths), 4, replace=False).tolist()):
        image = read_image(persons.paths[index])
        scale = min(width / image.shape[1], height / image.shape[0]) * rng.uniform(0.6, 1)
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        image = image[:height, :width]
        left = quarter % 2 * width + rng.integers(0, width - image.shape[1] + 1)
        top = quarter // 2 * height + rng.integers(0, height - image.shape[0] + 1)
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        placed.append((index, scale, np.array([left, top])))
    return canvas, placed


def mosaics(estimator: PoseEstimator, persons: Persons, number: int) -> dict[str, str]:
    rng = np.random.default_rng(0)
    right = matched = total = right_given = right_found = 0
    seconds = 0.0
    with Progress(number, 'mosaics') as progress:
        for _ in range(number):
            canvas, placed = mosaic(persons, rng)
            boxes = np.stack(
                [persons.boxes[index] * scale + np.tile(shift, 2) for index, scale, shift in placed]
            )
            given = estimator(canvas, boxes)
            start = time.perf_counter()
            found = estimator(canvas)
            seconds += time.perf_counter() - start
            used = set()
            for (index, scale, shift), box, points in zip(placed, boxes, given.keypoints):
                overlaps = iou(found.boxes, box)
                hit = overlaps.size > 0 and overlaps.max() >= FOUND
                right += hit
                used |= {int(overlaps.argmax())} if hit else set()
                if persons.half_right((points - shift) / scale, index):
                    right_given += 1
                    right_found += hit and persons.half_right(
                        (found.keypoints[overlaps.argmax()] - shift) / scale, index
                    )
            matched += len(used)
            total += len(found)
            progress.update()
    return {
        'mosaics: recall of boxes': f'{right / (4 * number):.2f}',
        'mosaics: precision of boxes': f'{matched / max(total, 1):.2f}',
        'mosaics: poses half right, of those with boxes': f'{right_found / max(right_given, 1):.2f}',
        'seconds a mosaic': f'{seconds / number:.2f}',
    }


def backgrounds(estimator: PoseEstimator, persons: Persons, indices: list[int]) -> dict[str, str]:
    windows = []
    for index in sorted({*indices} - CROWDED):
        image = read_image(persons.paths[index])
        left, top, right, bottom = np.rint(persons.boxes[index]).astype(int).clip(0).tolist()
        beside = image[:, :left], image[:, right:], image[:top], image[bottom:]
        largest = max(beside, key=lambda part: min(part.shape[:2]))
        if min(largest.shape[:2]) >= MIN_BACKGROUND:
            windows.append(largest)
    counts = [len(estimator(window)) for window in windows]
    return {f'persons in {len(windows)} backgrounds': f'{sum(counts)}'}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path)
    parser.add_argument('network', nargs='*', help='config and checkpoint (default: those of the package)')
    parser.add_argument('--photographs', type=int, default=500)
    parser.add_argument('--mosaics', type=int, default=200)
    parser.add_argument('--bfloat16', action='store_true')
    parser.add_argument('--backend', default='torch')
    args = parser.parse_args()
    options = dict(device='cpu', bfloat16=args.bfloat16, backend=args.backend)
    estimator, persons = PoseEstimator(*args.network, **options), Persons(args.folder)
    indices = np.linspace(0, len(persons.paths) - 1, args.photographs).astype(int).tolist()
    rows = photographs(estimator, persons, indices)
    rows |= mosaics(estimator, persons, args.mosaics) | backgrounds(estimator, persons, indices)
    print('| figure | value |\n|---|---|')
    for name, value in rows.items():
        print(f'| {name} | {value} |')


if __name__ == '__main__':
    main()
