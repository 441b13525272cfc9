from .mpii import MPIIPoseDataset
from .transforms import LoadReducedImage, PackKeypoints, RandomMirror, RandomPersonTransform, TopdownWarp

__all__ = [
    'LoadReducedImage',
    'MPIIPoseDataset',
    'PackKeypoints',
    'RandomMirror',
    'RandomPersonTransform',
    'TopdownWarp',
]
