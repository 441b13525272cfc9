"""MMPose's runtime, with the plugin's hooks."""

_base_ = ['mmpose::_base_/default_runtime.py']
custom_imports = dict(imports=['hg_plugin'], allow_failed_imports=False)

default_hooks = dict(
    # keeps losses on the GPU until they are logged
    runtime_info=dict(type='LazyRuntimeInfoHook'),
    tf32=dict(type='TF32Hook', enable=True),
    # keeps freed memory in the process on CPUs, where the system would zero it again in every step
    keep_memory=dict(type='KeepMemoryHook', enable=True),
    # counts steps whose gradients are not finite, and stops after 20 in a row
    divergence=dict(type='DivergenceHook'),
    # counts unreadable training images over all processes
    unreadable_images=dict(type='UnreadableImagesHook'),
    # survives kills and full disks, and refuses a work directory in use
    checkpoint=dict(
        type='SafeCheckpointHook', interval=1, max_keep_ckpts=2, save_best='Mean', rule='greater'
    ),
    # a resumed training computes what an uninterrupted one does, from the next sample on
    exact_resume=dict(type='ExactResumeHook'),
    # SIGTERM, SIGUSR1, SIGHUP and Ctrl-C write a checkpoint, and end the run with exit code 85
    preemption=dict(type='PreemptionHook'),
    # keeps predictions, timings and environment for hg_plugin report
    report=dict(type='ReportHook'),
    # tests with the network that inference runs, see hg_plugin.models.reparameterize
    reparameterize=dict(type='ReparameterizeHook', enable=False),
)
custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(type='CollapseWarningHook'),
    # draws four validation persons, stack by stack, for the visualizer's backends
    dict(type='StageHeatmapHook', interval=5),
]
env_cfg = dict(cudnn_benchmark=True)
# compile = True, or dict(mode=...) of torch.compile's arguments, compiles the training step.
# It is not set to False here, because a dict could not replace that.
log_processor = dict(num_digits=4)
