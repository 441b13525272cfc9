"""Draw skeletons and heatmap sheets."""

import colorsys
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
import torch
from mmpose.structures import PoseDataSample
from mmpose.structures.bbox import get_warp_matrix

from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.heatmaps import heatmap_peaks
from hg_plugin.utils.images import read_image

ORANGE = (255, 128, 0)  # RGB, of keypoints without a metainfo
# sides of drawn persons, and heights of cells of heatmap sheets and of stage sheets, in pixels
PERSON_SIZE, SHEET_HEIGHT, STAGE_HEIGHT = 192, 128, 256


def crop_person(
    image: np.ndarray, center: np.ndarray, scale: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Crop the square of ``max(scale)`` pixels around ``center``.

    Returns:
        The crop (size, size, 3), and the (2, 3) matrix from pixels of the image to pixels of the crop.
    """
    matrix = get_warp_matrix(np.asarray(center), np.full(2, np.max(scale)), 0.0, (size, size))
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR), matrix


def bones(dataset_meta: dict) -> list[tuple[int, int, tuple[int, int, int]]]:
    """The links of the skeleton: start, end and RGB colour.

    Keypoints that no training image had (``unannotated_keypoints``) have no links. Instead their neighbours
    are joined to each other and, along keypoints of the middle, to the next one of their side: without pelvis
    and thorax, MPII's hips to each other and to the shoulders.
    """
    links = [tuple(link) for link in dataset_meta.get('skeleton_links', ())]
    colors = np.reshape(dataset_meta.get('skeleton_link_colors', ()), (-1, 3)).tolist()
    found = dict(zip(links, colors))
    missing = {dataset_meta['keypoint_name2id'][k] for k in dataset_meta.get('unannotated_keypoints', ())}
    near: dict[int, set] = defaultdict(set)
    for a, b in links:
        near[a].add(b)
        near[b].add(a)
    for k in missing:
        ends = sorted(near[k] - missing)
        pairs = [*combinations(ends, 2)]
        for end in ends:
            side, passed, last = _side(end, dataset_meta), {end, k}, {k}
            while last and side != 'middle':
                last = {other for middle in last for other in near[middle]} - passed
                passed |= last
                same = [other for other in last if _side(other, dataset_meta) == side]
                pairs += [(end, other) for other in same]
                last = {other for other in last if _side(other, dataset_meta) == 'middle' and not same}
        found |= {pair: np.ravel(dataset_meta['keypoint_colors'][pair[0]]).tolist() for pair in pairs}
    return [(a, b, tuple(color)) for (a, b), color in found.items() if not {a, b} & missing]


def _side(keypoint: int, dataset_meta: dict) -> str:
    name = dataset_meta['keypoint_id2name'][keypoint]
    return next((side for side in ('left', 'right') if name.startswith(side)), 'middle')


def draw_skeleton(
    image: np.ndarray,
    keypoints: np.ndarray,
    visible: np.ndarray,
    dataset_meta: dict,
    thickness: int | None = None,
) -> np.ndarray:
    """Draw the skeleton of one person, in place, in the colours of the dataset. See also :func:`bones`.

    Args:
        image: (H, W, 3) BGR.
        keypoints: (K, 2) in pixels.
        visible: (K,) bool: which keypoints are drawn.
        dataset_meta: MMPose's metainfo with ``skeleton_links``, ``skeleton_link_colors`` and
            ``keypoint_colors`` (RGB), such as :attr:`PoseEstimator.dataset_meta`.
        thickness: Of the lines, in pixels. Defaults to None: 1/128 of the longer side of the image.

    Returns:
        The image.
    """
    thickness = thickness or max(1, round(max(image.shape[:2]) / 128))
    colors = np.reshape(dataset_meta.get('keypoint_colors', [ORANGE] * len(keypoints)), (-1, 3))[:, ::-1]
    # shift=4: in 1/16 pixels
    points = np.rint(np.asarray(keypoints, float) * 16).astype(int).tolist()
    for start, end, color in bones(dataset_meta):
        if visible[start] and visible[end]:
            cv2.line(image, points[start], points[end], color[::-1], thickness, cv2.LINE_AA, shift=4)
    for point, drawn, point_color in zip(points, visible, colors.tolist()):
        if drawn:
            cv2.circle(image, point, 16 * (thickness + 1), point_color, -1, cv2.LINE_AA, shift=4)
    return image


def draw_beside_truth(sample: PoseDataSample, dataset_meta: dict, kpt_thr: float = 0) -> np.ndarray:
    """Draw prediction and ground truth of a tested person, (192, 2 * 192, 3) BGR.

    Of the annotated keypoints, those are drawn whose score is at least ``kpt_thr``.
    """
    image = read_image(sample.img_path)
    crop, matrix = crop_person(image, sample.input_center, sample.input_scale, PERSON_SIZE)
    visible = np.asarray(sample.gt_instances.keypoints_visible)[0]
    annotated = visible.reshape(len(visible), -1)[:, 0] > 0  # KeypointConverter appends weights
    sure = sample.pred_instances.keypoint_scores[0] >= kpt_thr
    halves = []
    for instances, shown in ((sample.pred_instances, annotated & sure), (sample.gt_instances, annotated)):
        keypoints = cv2.transform(np.asarray(instances.keypoints, dtype=np.float64)[:1, :, :2], matrix)[0]
        halves.append(draw_skeleton(crop.copy(), keypoints, shown, dataset_meta))
    cell = np.hstack(halves)
    cell[:, -2:] = 255
    return cell


def write_grid(path, cells: Sequence[np.ndarray], title: str) -> None:
    """Write images of one size, (H, W, 3) BGR, as a PNG of four columns below a title, atomically."""
    cells = [*cells, *[np.full_like(cells[0], 255)] * (-len(cells) % 4)]
    rows = [np.hstack(cells[first : first + 4]) for first in range(0, len(cells), 4)]
    with atomic_write(path) as file:
        file.write(cv2.imencode('.png', np.vstack([label(title, (rows[0].shape[1], 20)), *rows]))[1])


def person_color(index: int) -> tuple[int, int, int]:
    """BGR colour of person ``index``: bright, and unlike those of the persons before."""
    # steps of the golden ratio round the circle of hues, from pink, which no keypoint of MPII or COCO has
    red, green, blue = colorsys.hsv_to_rgb((0.87 + index * 0.618034) % 1, 0.85, 1)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_poses(
    image: np.ndarray,
    keypoints: np.ndarray,
    visible: np.ndarray,
    dataset_meta: dict,
    boxes: np.ndarray | None = None,
    persons: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw the skeletons of N persons and their boxes, each in a colour of its own, in place.

    Lines are thinner for persons whose box is small.

    Args:
        image: (H, W, 3) BGR.
        keypoints: (N, K, 2) in pixels.
        visible: (N, K) bool: which keypoints are drawn.
        dataset_meta: See :func:`draw_skeleton`.
        boxes: (N, 4), left, top, right and bottom in pixels. Defaults to None: no boxes are drawn.
        persons: N numbers that choose the boxes' colours, see :func:`person_color`. Defaults to None: 0 to
            N - 1.

    Returns:
        The image.
    """
    for index, (points, drawn) in enumerate(zip(keypoints, visible)):
        thickness = None
        if boxes is not None:
            color = person_color(index if persons is None else persons[index])
            left, top, right, bottom = np.rint(boxes[index]).astype(int).tolist()
            size = min(max(right - left, bottom - top), max(image.shape[:2]))
            thickness = max(1, round(size / 96))
            # from 0 to 1 less than the side, so that the box of a whole image can be seen
            corners = (left, top), (min(right, image.shape[1] - 1), min(bottom, image.shape[0] - 1))
            cv2.rectangle(image, *corners, color, max(1, thickness // 2), cv2.LINE_AA)
        draw_skeleton(image, points, drawn, dataset_meta, thickness)
    return image


def blend_by_color(image: np.ndarray, heatmaps: np.ndarray, dataset_meta: dict) -> np.ndarray:
    """Draw the heatmaps of all keypoints over the gray image, each in the color of its keypoint.

    Where heatmaps of keypoints with different colors lie on each other, such as left and right, colors mix.

    Args:
        image: (H, W, 3) BGR.
        heatmaps: (K, h, w) of the same area, 0 to 1; values outside are clipped.
        dataset_meta: MMPose's metainfo with ``keypoint_colors`` (RGB).

    Returns:
        (H, W, 3) uint8, BGR.
    """
    colors = np.reshape(dataset_meta['keypoint_colors'], (-1, 3))[:, ::-1].astype(np.float32)
    heatmaps = np.clip(heatmaps, 0, 1)
    size = image.shape[1::-1]
    color = np.tensordot(heatmaps, colors, axes=(0, 0)) / np.maximum(heatmaps.sum(axis=0), 1e-6)[..., None]
    opacity = 0.9 * cv2.resize(heatmaps.max(axis=0), size, interpolation=cv2.INTER_LINEAR)[..., None]
    gray = np.repeat(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2) * 0.6
    color = cv2.resize(color, size, interpolation=cv2.INTER_LINEAR)
    return (gray * (1 - opacity) + color * opacity).astype(np.uint8)


def heatmap_sheet(crop: np.ndarray, heatmaps: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw one person's heatmaps, a column per keypoint and a row per stack.

    A heatmap lies over the gray crop, from blue, just above 0, to red, which is 1. A cross marks its peak;
    the height of the peak stands below. Where a stack moves the peak by more than one pixel of the heatmap,
    the cell has a yellow frame, a line leads from a ring at the old peak to the new one, and the distance in
    pixels of the crop stands below.

    Args:
        crop: (H, W, 3) BGR, the network's input.
        heatmaps: (S, K, h, w) of S stacks, of the same area. Values above 1 are scaled down.
        names: Of the K keypoints.

    Returns:
        The sheet (height, width, 3), BGR.
    """
    num_stacks, _, height, width = heatmaps.shape
    size = max(round(SHEET_HEIGHT * crop.shape[1] / crop.shape[0]), 1), SHEET_HEIGHT
    gray = cv2.cvtColor(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    background = np.repeat(gray[..., None], 3, axis=2) * 0.8
    heatmaps = np.clip(heatmaps / max(float(heatmaps.max()), 1.0), 0, 1)
    peaks = heatmap_peaks(torch.from_numpy(heatmaps))[1].numpy()

    def position(peak: np.ndarray) -> tuple[int, int]:
        """The center of a pixel of the heatmap, in the cell."""
        return tuple(int(value) for value in (peak + 0.5) * size / (width, height))

    stacks = [label(f'stage {stack}', (64, SHEET_HEIGHT + 20)) for stack in range(num_stacks)]
    columns = [[label('', (64, 20)), *stacks]]
    for keypoint, name in enumerate(names):
        cells = [label(name.replace('_', ' '), (size[0], 20))]
        for stack in range(num_stacks):
            cell = blend_heatmap(background, heatmaps[stack, keypoint])
            peak, text = peaks[stack, keypoint], f'{heatmaps[stack, keypoint].max():.2f}'
            before = peaks[max(stack - 1, 0), keypoint]
            if np.abs(peak - before).max() > 1:
                moved = np.linalg.norm((peak - before) * crop.shape[1::-1] / (width, height))
                text += f', moved {moved:.0f}'
                cv2.circle(cell, position(before), 4, (255, 255, 255), 1, cv2.LINE_AA)
                cv2.line(cell, position(before), position(peak), (255, 255, 255), 1, cv2.LINE_AA)
                cv2.rectangle(cell, (0, 0), (size[0] - 1, SHEET_HEIGHT - 1), (0, 220, 255), 2)
            cv2.drawMarker(cell, position(peak), (255, 255, 255), cv2.MARKER_CROSS, 9, 1, cv2.LINE_AA)
            cells += [cell, label(text, (size[0], 20))]
        columns.append(cells)
    sheet = _side_by_side(columns)
    legend = 'cross: peak, its height below; line: from the peak of the stack before, in pixels of the crop'
    return np.vstack([sheet, label(legend, (sheet.shape[1], 22))])


def blend_heatmap(background: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Draw a heatmap over an image, from blue, just above 0, to red, which is 1.

    Args:
        background: (H, W, 3), BGR.
        heatmap: (h, w) of the same area, 0 to 1.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    size = background.shape[1::-1]
    values = cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR)[..., None]
    opacity = np.minimum(2 * values, 0.8)
    color = cv2.applyColorMap((values * 255).astype(np.uint8), cv2.COLORMAP_JET)
    return (background * (1 - opacity) + color * opacity).astype(np.uint8)


def stage_sheet(
    crop: np.ndarray,
    truth: np.ndarray,
    annotated: np.ndarray,
    heatmaps: np.ndarray,
    keypoints: np.ndarray,
    dataset_meta: dict,
) -> np.ndarray:
    """Draw what every stack makes of one person.

    On the left is the input, and below it the ground truth. For every stack follow its skeleton, and below it
    its heatmaps in the colors of the keypoints. Keypoints that are not annotated are left out.

    Args:
        crop: (H, W, 3) BGR, the network's input.
        truth: (K, 2) in pixels of the input.
        annotated: (K,) bool.
        heatmaps: (S, K, h, w) of S stacks, of the same area.
        keypoints: (S, K, 2) that were decoded from them, in pixels of the input.
        dataset_meta: As for :func:`draw_skeleton`.

    Returns:
        The sheet (height, width, 3), BGR.
    """
    factor = STAGE_HEIGHT / crop.shape[0]
    size = max(round(crop.shape[1] * factor), 1), STAGE_HEIGHT
    image = cv2.resize(crop, size, interpolation=cv2.INTER_LINEAR)

    def skeleton(points: np.ndarray) -> np.ndarray:
        return draw_skeleton(image.copy(), (points + 0.5) * factor - 0.5, annotated, dataset_meta)

    columns = [[image, label('input, and ground truth', (size[0], 20)), skeleton(truth)]]
    for stack, (maps, points) in enumerate(zip(heatmaps * annotated[:, None, None], keypoints)):
        peak = maps[annotated].max(axis=(1, 2)).mean() if annotated.any() else 0.0
        text = label(f'stage {stack}, mean peak {peak:.2f}', (size[0], 20))
        columns.append([skeleton(points), text, blend_by_color(image, maps, dataset_meta)])
    return _side_by_side(columns)


def _side_by_side(columns: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Columns of images, with white between them."""
    edges = ((2, 2), (2, 2), (0, 0))
    return np.hstack([np.pad(np.vstack(column), edges, constant_values=255) for column in columns])


def label(text: str, size: tuple[int, int]) -> np.ndarray:
    """Write black text on white, (height, width, 3), smaller where it does not fit."""
    image = np.full((size[1], size[0], 3), 255, np.uint8)
    font = 0.42
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, font, 1)
    font *= min(1, (size[0] - 4) / max(width, 1))
    cv2.putText(image, text, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, font, (0, 0, 0), 1, cv2.LINE_AA)
    return image
