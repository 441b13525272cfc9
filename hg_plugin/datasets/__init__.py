from .mpii import MPIIPoseDataset

__all__ = ['MPIIPoseDataset']
