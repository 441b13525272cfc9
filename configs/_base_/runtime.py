"""What every experiment shares: the plugin, hooks, logging."""
custom_imports = dict(imports=['hg_plugin'], allow_failed_imports=False)
default_scope = 'mmpose'

default_hooks = dict(
    # losses stay on the GPU until they are logged
    runtime_info=dict(type='LazyRuntimeInfoHook'),
    tf32=dict(type='TF32Hook', enable=True),
    # on CPUs, the system otherwise takes all activations back and zeroes them again in every step
    keep_memory=dict(type='KeepMemoryHook', enable=True),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2, save_best='Mean', rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='PoseVisualizationHook', enable=False),
    # for tools/test.py: predict with the network that inference runs, see hg_plugin.models.reparameterize
    reparameterize=dict(type='ReparameterizeHook', enable=False))
custom_hooks = [
    # every process has its own running statistics; validation and checkpoints want one
    dict(type='SyncBuffersHook'),
    dict(type='CollapseWarningHook'),
]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='PoseLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True, num_digits=6)
# MMEngine compiles the training step, for minutes, where a config says compile = True, or dict(mode='max-autotune') and other arguments of
# torch.compile. There is no False here, because a dict could not replace it.
log_level = 'INFO'
load_from = None
resume = False
