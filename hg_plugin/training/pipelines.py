"""Pipelines whose order would train on wrong pictures, or end in a traceback, are refused before anything runs."""

from mmengine.config import Config

from hg_plugin.utils.errors import InputError

LOADS = 'LoadImage', 'LoadReducedImage'
WARPS = 'TopdownAffine', 'TopdownWarp'
PACKS = 'PackPoseInputs', 'PackKeypoints'
# transform: what must stand somewhere before it, one of each group
BEFORE = {
    'LoadReducedImage': [('GetBBoxCenterScale',)],
    'RandomPersonTransform': [('GetBBoxCenterScale',)],
    'RandomMirror': [('GetBBoxCenterScale',)],
    'TopdownWarp': [('GetBBoxCenterScale',), LOADS],
    'TopdownAffine': [('GetBBoxCenterScale',), ('LoadImage',)],
    'GenerateTarget': [WARPS],
    'PackKeypoints': [WARPS],
}
# and what must stand somewhere behind it
BEHIND = {
    'LoadReducedImage': [('TopdownWarp',)],
    'RandomPersonTransform': [WARPS],
    'RandomBBoxTransform': [WARPS],
    'RandomFlip': [WARPS],
    'RandomMirror': [('TopdownWarp',)],
    'GenerateTarget': [('PackPoseInputs',)],
}
TOGETHER_WRONG = [('RandomMirror', 'RandomFlip'), ('LoadReducedImage', 'RandomFlip'), LOADS, WARPS, PACKS]


def check_pipelines(cfg: Config) -> None:
    """Looks at the loaders' pipelines of a top-down config, in which the plugin's transforms and MMPose's may be mixed.

    Raises:
        InputError: naming loader and transform, for an order that cannot be right; for a warp that does not fit the head's codec; and for
            a training pipeline whose samples the data preprocessor cannot take.
    """
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        pipeline = (cfg.get(loader) or {}).get('dataset', {}).get('pipeline') or []
        names = [transform.get('type') for transform in pipeline]
        if not set(names) & {
            'TopdownWarp',
            'TopdownAffine',
            'LoadReducedImage',
            'RandomMirror',
            'PackKeypoints',
        }:
            continue  # of another kind
        place = f'{loader}.dataset.pipeline'
        problem = _wrong_order(names) or _wrong_codec(pipeline, cfg.model)
        if not problem and loader == 'train_dataloader':
            problem = _wrong_for_the_model(names, cfg.model)
        if problem:
            raise InputError(f'{place}: {problem}.')


def _wrong_order(names: list[str]) -> str | None:
    for index, name in enumerate(names):
        for others in BEFORE.get(name, ()):
            if not set(others) & set(names[:index]):
                return f'{name} needs {" or ".join(others)} before it'
        for others in BEHIND.get(name, ()):
            if not set(others) & set(names[index + 1 :]):
                return f'{name} needs {" or ".join(others)} behind it'
    for name in ('RandomMirror', *LOADS, *WARPS, *PACKS):
        if names.count(name) > 1:
            return f'{name} stands there {names.count(name)} times; leave one'
    for group in TOGETHER_WRONG:
        if set(group) <= set(names):
            return f'{" and ".join(group)} exclude each other; leave one'
    if names[-1] not in PACKS:
        return f'the last transform should be {" or ".join(PACKS)}, but is {names[-1]}'
    return None


def _wrong_codec(pipeline: list, model: dict) -> str | None:
    decoder = (model.get('head') or {}).get('decoder') or {}
    for transform in pipeline:
        if transform['type'] in WARPS and decoder.get('type') in ('MSRAHeatmap', 'UDPHeatmap'):
            udp = decoder['type'] == 'UDPHeatmap'
            if bool(transform.get('use_udp', False)) != udp:
                return f'{transform["type"]} has use_udp={not udp}, but model.head.decoder is {decoder["type"]}; set use_udp={udp}'
    return None


def _wrong_for_the_model(names: list[str], model: dict) -> str | None:
    preprocessor, decoder = (
        model.get('data_preprocessor') or {},
        (model.get('head') or {}).get('decoder') or {},
    )
    if names[-1] == 'PackKeypoints':
        encoder = preprocessor.get('encoder')
        if preprocessor.get('type') != 'HeatmapDataPreprocessor' or not encoder:
            return 'PackKeypoints needs model.data_preprocessor of the type HeatmapDataPreprocessor with an encoder, which draws the heatmaps'
        if encoder.get('type') != decoder.get('type'):
            return (
                f'heatmaps are drawn by model.data_preprocessor.encoder, {encoder.get("type")}, and read by model.head.decoder, '
                f'{decoder.get("type")}; give both the same codec'
            )
    elif 'GenerateTarget' not in names:
        return 'PackPoseInputs needs GenerateTarget before it, which draws the heatmaps; or end with PackKeypoints'
    return None
