"""All that keeps a training alive, and lets it resume."""

from .checkpoint import SafeCheckpointHook
from .divergence import DivergenceHook
from .exact_resume import ExactResumeHook
from .preemption import PreemptionHook

__all__ = ['DivergenceHook', 'ExactResumeHook', 'PreemptionHook', 'SafeCheckpointHook']
