from .mpii import MPIIPoseDataset
from .transforms import PackKeypoints, TopdownCrop

__all__ = ['MPIIPoseDataset', 'PackKeypoints', 'TopdownCrop']
