"""Two stacks of the paper's second version: 256x256 pixels in, 64x64 heatmaps out."""

# draws targets and decodes predictions; the crops of the pipelines have the same input_size
codec = dict(type='MSRAHeatmap', input_size=(256, 256), heatmap_size=(64, 64), sigma=2)

model = dict(
    type='HourglassPoseEstimator',
    codec=codec,
    data_preprocessor=dict(
        type='HeatmapDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(type='StackedHourglass', num_stacks=2, num_keypoints=16, channels_last=True),
    head=dict(type='MultiStageHeatmapHead', loss=dict(type='KeypointMSELoss', use_target_weight=True)),
    # stage_keypoints: PCKh of every stage
    test_cfg=dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True, stage_keypoints=True),
)
