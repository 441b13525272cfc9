"""MMPose's runtime, and all that keeps a training alive. docs/reliability.md says what each part does."""

_base_ = ['mmpose::_base_/default_runtime.py']

default_hooks = dict(
    # MMPose's, but for badcase, which cannot compute MPIIPCKh; MMEngine adds its own, such as the timer
    _delete_=True,
    logger=dict(type='LoggerHook', interval=50),
    visualization=dict(type='PoseVisualizationHook', enable=False),
    # survives kills and full disks, and refuses a work directory in use
    checkpoint=dict(type='SafeCheckpointHook'),
    # a resumed training computes what an uninterrupted one does, from the next sample on
    exact_resume=dict(type='ExactResumeHook'),
    # SIGTERM, SIGUSR1, SIGHUP and Ctrl-C write a checkpoint, and end the run with exit code 85
    preemption=dict(type='PreemptionHook'),
    # counts steps whose gradients are not finite and unreadable images, and warns of a collapse
    divergence=dict(type='DivergenceHook'),
)
