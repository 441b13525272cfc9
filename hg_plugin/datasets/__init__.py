from .mpii import MPIIPoseDataset
from .samplers import SeededInfiniteSampler, SeededSampler
from .transforms import PackKeypoints, TopdownCrop

__all__ = ['MPIIPoseDataset', 'PackKeypoints', 'SeededInfiniteSampler', 'SeededSampler', 'TopdownCrop']
