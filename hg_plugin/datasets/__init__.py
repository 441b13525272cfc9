from .mpii import MPIIPoseDataset
from .negatives import RandomNegative
from .occlusion import RandomOcclusion
from .samplers import SeededInfiniteSampler, SeededSampler
from .transforms import PackKeypoints, TopdownCrop

__all__ = [
    'MPIIPoseDataset',
    'PackKeypoints',
    'RandomNegative',
    'RandomOcclusion',
    'SeededInfiniteSampler',
    'SeededSampler',
    'TopdownCrop',
]
