"""Annotations of an annotation tool, whatever its format, on their way to COCO's layout."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

Point = tuple[float, float, float]  # x, y and COCO's visibility: 0 not labeled, 1 occluded, 2 visible
Box = tuple[float, float, float, float]  # left, top, right, bottom


class Person(NamedTuple):
    """A person as an export describes it.

    Attributes:
        image: Path or name of the image, as the export has it.
        points: Keypoints by name, in pixels of the image, or in shares of its size.
        box: Around the person, in the same unit. None: made of the keypoints.
        size: Width and height of the image when it was annotated, in pixels, or None.
        shares: Whether coordinates are shares of the image's size, 0 to 1.
    """

    image: str
    points: dict[str, Point]
    box: Box | None = None
    size: tuple[float, ...] | None = None
    shares: bool = False


@dataclass
class Export:
    """What is read of an export.

    Attributes:
        persons: In the order of the export.
        names: Of the keypoints, in order, without repetition.
        links: Pairs of keypoints that a skeleton joins.
        partners: The keypoint that each becomes in a flipped image, where an export says so.
        left_out: By reason, where what cannot be used is.
    """

    persons: list[Person] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    partners: dict[str, str] = field(default_factory=dict)
    left_out: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, person: Person) -> None:
        self.add_names(person.points)
        self.persons.append(person)

    def add_names(self, names) -> None:
        self.names += [name for name in dict.fromkeys(names) if name not in self.names]

    def add_loose(self, image: str, points, boxes, **others) -> None:
        """Add the persons of an image whose keypoints are not in skeletons.

        Keypoints and a box of the same group are one person. A keypoint without a group is of the box around
        it or, where the image has no box, of the only person.

        Args:
            image: See :class:`Person`.
            points: (name, :data:`Point`, group or None) of every keypoint.
            boxes: (:data:`Box`, group or None) of every box.
            **others: See :class:`Person`.
        """
        around = {(index if group is None else group): box for index, (box, group) in enumerate(boxes)}
        persons: dict = {}
        for name, (x, y, visible), group in points:
            if group is None and around:
                inside = [key for key, (a, b, c, d) in around.items() if a <= x <= c and b <= y <= d]
                if len(inside) != 1:
                    where = 'several boxes' if inside else 'no box'
                    self.left_out[f'keypoints in {where} and without a group'].append(f'{image}, {name}')
                    continue
                group = inside[0]
            person = persons.setdefault(group, {})
            if name in person:
                self.left_out['keypoints whose person has another one of that name'].append(
                    f'{image}, {name}'
                )
            else:
                person[name] = (x, y, visible)
        for key in around.keys() - persons.keys():
            self.left_out['boxes without keypoints'].append(f'{image}, {around[key]}')
        for group, person in persons.items():
            self.add(Person(image, person, around.get(group), **others))
