"""Write MMPose's description of keypoints from their names."""

import re
from collections.abc import Iterable
from pprint import pformat

COLORS = dict(l=[0, 255, 0], r=[255, 128, 0])  # MMPose's, of left and right
MIDDLE = [51, 153, 255]
SIGMA = 0.07  # about the mean of COCO's 17
OTHER = dict(left='right', right='left', l='r', r='l')


def partners_of(names: Iterable[str]) -> dict[str, str]:
    """The keypoints that others become where left and right change places, by their names.

    ``left_knee`` and ``right_knee``, ``LeftKnee`` and ``RightKnee``, ``knee-l`` and ``knee-r``, ``kneeL`` and
    ``kneeR``, ``lkne`` and ``rkne`` are pairs.
    """
    known, partners = dict.fromkeys(names), {}
    for name in known:
        # words, letters that stand alone, the first letter, the last letter
        for pattern in ('left|right', r'(?<![^\W_])[lr](?![^\W_])', '^[lr]', '[lr]$'):
            other = re.sub(pattern, _flipped, name, flags=re.IGNORECASE)
            if other != name and other in known:
                partners[name] = other
                break
    return partners


def _flipped(found: re.Match) -> str:
    word = found[0]
    other = OTHER[word.lower()]
    return other.upper() if word.isupper() else other.title() if word.istitle() else other


def metainfo_of(
    dataset: str,
    names: list[str],
    links: Iterable[tuple[str, str]] = (),
    partners: dict[str, str] | None = None,
) -> dict:
    """MMPose's metainfo.

    Args:
        dataset: The name of the dataset.
        names: Of the keypoints, in order.
        links: Pairs of keypoints that the skeleton joins. Defaults to ().
        partners: The keypoint that each becomes in a flipped image. Defaults to None, which means
            :func:`partners_of`.
    """
    partners = partners or partners_of(names)
    colors = {}
    for name in names:
        # left and right names differ first in l and r
        differing = [a for a, b in zip(name, partners.get(name, name)) if a != b]
        colors[name] = COLORS.get(differing[0].lower(), MIDDLE) if differing else MIDDLE
    return dict(
        dataset_name=dataset,
        keypoint_info={
            index: dict(name=name, id=index, color=colors[name], swap=partners.get(name, ''))
            for index, name in enumerate(names)
        },
        skeleton_info={
            # a link from the middle to a side has the color of the middle
            index: dict(link=link, id=index, color=colors[min(link, key=lambda name: colors[name] != MIDDLE)])
            for index, link in enumerate(dict.fromkeys(links))
        },
        joint_weights=[1.0] * len(names),
        sigmas=[SIGMA] * len(names),
    )


def metainfo_text(metainfo: dict) -> str:
    """The text of a file for ``metainfo=dict(from_file='metainfo.py')``."""
    return f'dataset_info = {pformat(metainfo, sort_dicts=False, width=110)}\n'
