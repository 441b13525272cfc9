"""What MMPose imports from xtcocotools, on top of pycocotools, which has wheels for every Python.

xtcocotools 1.14 has wheels for NumPy 1 only, and its setup.py fails on Python 3.13. To pycocotools it adds
the sigmas and areas that MMPose's metrics ask for, and CrowdPose; not the parts of COCO-WholeBody.
"""

import contextlib
import io
import json

import numpy as np
from pycocotools import coco, cocoeval
from pycocotools import mask as mask


class COCO(coco.COCO):
    """Annotations of a COCO file, read without a word; ``iscrowd`` and predictions may be missing."""

    def __init__(self, annotation_file: str | None = None):
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(annotation_file)
        for annotation in self.dataset.get('annotations', ()):
            annotation.setdefault('iscrowd', False)

    def loadRes(self, resFile: str):
        with open(resFile, encoding='utf-8') as file:
            if json.load(file):
                return super().loadRes(resFile)
        empty = COCO()
        empty.dataset = {**self.dataset, 'annotations': []}
        empty.createIndex()
        return empty


class COCOeval(cocoeval.COCOeval):
    """Average precision and recall by object keypoint similarity.

    Args:
        cocoGt (COCO): Annotations.
        cocoDt (COCO): Predictions, from ``cocoGt.loadRes``.
        iouType (str): 'keypoints', or 'keypoints_crowd' of CrowdPose. Defaults to 'keypoints'.
        sigmas (numpy.ndarray, optional): The tolerance of each keypoint. Defaults to COCO's.
        use_area (bool): Whether to take an annotation's ``area``, or 0.53 of its box. Defaults to True.
    """

    def __init__(self, cocoGt, cocoDt, iouType='keypoints', sigmas=None, use_area=True):
        if iouType not in ('keypoints', 'keypoints_crowd'):
            raise NotImplementedError(f'{iouType} needs xtcocotools, which pycocotools replaces here')
        super().__init__(cocoGt, cocoDt, 'keypoints')
        self.crowd = iouType == 'keypoints_crowd'
        self.use_area = use_area
        if sigmas is not None:
            self.params.kpt_oks_sigmas = np.asarray(sigmas)

    def _prepare(self):
        """Groups copies that hold what pycocotools reads. It takes the id 0 for no match, so they are
        counted from 1."""
        self._gts.clear()
        self._dts.clear()
        for number, gt in enumerate(self._annotations(self.cocoGt), 1):
            keypoints = gt['keypoints']
            width, height = gt['bbox'][2:]
            labelled = gt['num_keypoints'] if self.crowd else np.any(np.greater(keypoints[2::3], 0))
            self._gts[gt['image_id'], gt['category_id']].append(
                dict(
                    id=number,
                    keypoints=keypoints,
                    bbox=gt['bbox'],
                    area=gt['area'] if self.use_area and 'area' in gt else 0.53 * width * height,
                    iscrowd=gt['iscrowd'],
                    ignore=gt['iscrowd'] or not labelled,
                )
            )
        for number, dt in enumerate(self._annotations(self.cocoDt), 1):
            if np.any(np.greater(dt['keypoints'][2::3], 0)):
                self._dts[dt['image_id'], dt['category_id']].append(
                    dict(id=number, keypoints=dt['keypoints'], area=dt['area'], score=dt['score'])
                )

    def _annotations(self, source: coco.COCO) -> list[dict]:
        return source.loadAnns(source.getAnnIds(imgIds=self.params.imgIds, catIds=self.params.catIds))

    def summarize(self):
        super().summarize()
        if self.crowd:  # AP, AR, and AP of images by how crowded they are, instead of by a person's area
            images = self.cocoGt.dataset['images']
            easy_medium_hard = [
                self._mean_precision([image['id'] for image in images if low <= image['crowdIndex'] < high])
                for low, high in ((-np.inf, 0.2), (0.2, 0.8), (0.8, np.inf))
            ]
            self.stats = np.array([*self.stats[[0, 1, 2, 5, 6, 7]], *easy_medium_hard])

    def _mean_precision(self, image_ids: list[int]) -> float:
        self.params.imgIds = image_ids
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()
            self.accumulate()
        return round(np.mean(self.eval['precision'][:, :, :, 0, :]), 4)
