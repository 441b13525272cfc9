"""MMPose's runtime, with what an hourglass needs."""

# in place of resilient.py, 'mmpose::_base_/default_runtime.py' trains without what keeps a training alive
_base_ = ['resilient.py']
custom_imports = dict(imports=['hg_plugin'], allow_failed_imports=False)

default_hooks = dict(
    # keeps losses on the GPU until they are logged
    runtime_info=dict(type='LazyRuntimeInfoHook'),
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='Mean', rule='greater'),
    # keeps predictions, timings and environment for hg_plugin report
    report=dict(type='ReportHook'),
)
custom_hooks = [
    dict(type='SyncBuffersHook'),
    # draws four validation persons, stack by stack, for the visualizer's backends
    dict(type='StageHeatmapHook', interval=5),
]
# tools/train.py and tools/test.py read tf32: TensorFloat-32 on GPUs where float32 is left; and keep_memory:
# keep freed memory in the process on CPUs, where the system would zero it again in every step
env_cfg = dict(cudnn_benchmark=True, tf32=True, keep_memory=True)
# compile = True, or dict(mode=...) of torch.compile's arguments, compiles the training step.
# It is not set to False here, because a dict could not replace that.
log_processor = dict(num_digits=4)
