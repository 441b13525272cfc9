import inspect

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmpose.evaluation.functional import pose_pck_accuracy
from mmpose.models.heads import CPMHead
from mmpose.registry import KEYPOINT_CODECS
from mmpose.structures import PoseDataSample

from hg_plugin.models import MultiStageHeatmapHead, average_flipped, peak_pck
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.heatmaps import heatmap_peaks

CODECS = dict(
    msra=dict(type='MSRAHeatmap', input_size=(64, 96), heatmap_size=(16, 24), sigma=2),
    unbiased=dict(type='MSRAHeatmap', input_size=(64, 96), heatmap_size=(16, 24), sigma=2, unbiased=True),
    udp=dict(type='UDPHeatmap', input_size=(64, 96), heatmap_size=(16, 24), sigma=2),
)
FLIP_INDICES = [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10]


def samples(num, codec=CODECS['msra'], seed=0):
    """Data samples with targets of random keypoints, as MMPose's pipeline packs them."""
    random = np.random.RandomState(seed)
    codec = KEYPOINT_CODECS.build(codec)
    packed = []
    for _ in range(num):
        keypoints = random.uniform((16, 16), (48, 80), (1, 16, 2)).astype(np.float32)
        visible = (random.rand(1, 16) < 0.8).astype(np.float32)
        visible[0, 0] = 1
        encoded = codec.encode(keypoints, visible)
        sample = PoseDataSample(metainfo=dict(flip_indices=FLIP_INDICES))
        sample.gt_instances = InstanceData(keypoints=keypoints, keypoints_visible=visible)
        sample.gt_fields = PixelData(heatmaps=torch.from_numpy(encoded['heatmaps']))
        weights = torch.from_numpy(encoded['keypoint_weights'])
        sample.gt_instance_labels = InstanceData(keypoint_weights=weights)
        packed.append(sample)
    return packed


def head(**kwargs):
    return MultiStageHeatmapHead(**dict(num_stages=2, out_channels=16) | kwargs)


def heatmaps(stages=2, num=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(num, 16, 24, 16, generator=generator) for _ in range(stages))


def test_losses_by_stage_and_their_weights():
    plain = head().loss(heatmaps(), samples(3))
    weighted = head(stage_weights=[0.5, 3]).loss(heatmaps(), samples(3))
    assert set(plain) == {'loss_stage0', 'loss_stage1', 'heatmap_peak', 'acc_pose'}
    assert torch.isclose(weighted['loss_stage0'], 0.5 * plain['loss_stage0'])
    assert torch.isclose(weighted['loss_stage1'], 3 * plain['loss_stage1'])
    targets = torch.stack([s.gt_fields.heatmaps for s in samples(3)])
    weights = torch.cat([s.gt_instance_labels.keypoint_weights for s in samples(3)])[..., None, None]
    assert torch.isclose(plain['loss_stage1'], ((heatmaps()[1] - targets) ** 2 * weights).mean())


def test_heatmap_peak_is_one_for_the_truth_and_zero_for_nothing():
    batch = samples(3)
    truth = torch.stack([s.gt_fields.heatmaps for s in batch])
    assert head().loss((truth, truth), batch)['heatmap_peak'] == pytest.approx(1, abs=0.05)
    assert head().loss((truth, 0 * truth), batch)['heatmap_peak'] == 0


@pytest.mark.parametrize('size', [(24, 24), (16, 16)])
def test_accuracy_is_mmposes(size):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(6, 16, *size, generator=generator)
    pred = torch.where(torch.rand(6, 16, 1, 1, generator=generator) < 0.5, target, target.roll(6, -1))
    pred[0, 0] = 0  # a heatmap without a peak
    weights = (torch.rand(6, 16, generator=generator) < 0.7).float()
    weights[:, 3] = 0  # a keypoint that nobody has
    _, expected, _ = pose_pck_accuracy(pred.numpy(), target.numpy(), weights.numpy() > 0)
    assert 0.1 < expected < 0.9
    pred, target = (heatmap_peaks(heatmaps)[1] for heatmaps in (pred, target))
    assert peak_pck(pred, target, weights, size).item() == pytest.approx(expected, abs=1e-6)
    assert peak_pck(pred, target, torch.zeros(6, 16), size) == 0


@pytest.mark.usefixtures('cpp_compiler')
def test_compiled_in_bfloat16_the_losses_are_those_of_eager_mode():
    """Inductor up to torch 2.13 writes no C++ for a maximum of bfloat16 heatmaps that is stored twice."""
    targets = dict(
        heatmaps=torch.stack([s.gt_fields.heatmaps for s in samples(3)]), keypoint_weights=torch.ones(3, 16)
    )
    predicted = tuple(
        (targets['heatmaps'] * random).bfloat16().contiguous(memory_format=torch.channels_last)
        for random in heatmaps()
    )
    plain, compiled = head().loss(predicted, targets), torch.compile(head().loss)(predicted, targets)
    assert 0.1 < plain['heatmap_peak'] < 0.9 and 0.1 < plain['acc_pose'] < 1
    assert compiled == {key: pytest.approx(value.item(), rel=1e-2) for key, value in plain.items()}


def test_arguments_and_their_order_are_those_of_cpm_head():
    names = list(inspect.signature(CPMHead.__init__).parameters)
    assert list(inspect.signature(MultiStageHeatmapHead.__init__).parameters)[: len(names)] == names
    for arguments in [
        (8, 16, 2, (12,), (4,), dict(kernel_size=3, padding=1)),
        (8, 12, 2, (9, 12), (4, 3), None),
        (16, 16, 2, None, None, None),
    ]:
        theirs, ours = CPMHead(*arguments), MultiStageHeatmapHead(*arguments)
        ours.load_state_dict(theirs.state_dict())
        features = [torch.randn(2, arguments[0], 6, 4) for _ in range(2)]
        torch.testing.assert_close(ours(features), theirs(features), rtol=0, atol=0)


def test_a_codec_that_also_predicts_offsets():
    codec = dict(CODECS['udp'], heatmap_type='combined')
    loss = dict(type='CombinedTargetMSELoss', use_target_weight=True)
    model = head(out_channels=48, num_stages=1, decoder=codec, loss=loss)
    batch = samples(3, codec)
    truth = torch.stack([s.gt_fields.heatmaps for s in batch])
    losses = model.loss([truth], batch)
    assert losses['loss_stage0'] == 0 and losses['heatmap_peak'] == losses['acc_pose'] == 1
    flipped = truth.flip(-1).unflatten(1, (16, 3))[:, FLIP_INDICES]
    flipped[:, :, 1] *= -1
    averaged = average_flipped(truth, flipped.flatten(1, 2), FLIP_INDICES, dict(flip_mode='udp_combined'))
    assert torch.equal(averaged, truth)


@pytest.mark.parametrize('codec', CODECS)
def test_keypoints_come_back_through_every_codec(codec):
    batch = samples(3, CODECS[codec])
    truth = torch.stack([s.gt_fields.heatmaps for s in batch])
    preds = head(decoder=CODECS[codec]).predict((0 * truth, truth), batch)
    # half a heatmap pixel, and a quarter with the refinement of unbiased and UDP decoding
    tolerance = 2.1 if codec == 'msra' else 1
    for sample, pred in zip(batch, preds):
        seen = sample.gt_instances.keypoints_visible > 0
        assert np.abs(pred.keypoints - sample.gt_instances.keypoints)[seen].max() < tolerance


@pytest.mark.parametrize('type', ['KeypointOHKMMSELoss', 'AdaptiveWingLoss', 'FocalHeatmapLoss'])
def test_any_heatmap_loss_by_config(type):
    loss = [dict(type='KeypointMSELoss'), dict(type=type)]
    losses = head(loss=loss).loss(heatmaps(), samples(3))
    assert all(losses[f'loss_stage{stage}'].isfinite() for stage in range(2))


def test_mismatches_are_one_clear_error():
    narrow = tuple(h[..., :8] for h in heatmaps())
    for call, message in (
        (lambda: head()(heatmaps(stages=3)), '3 stages'),
        (lambda: head(out_channels=17)(heatmaps()), 'out_channels=17'),
        (lambda: head(decoder=CODECS['msra']).predict(narrow, samples(3)), '16x24.* 8x24'),
        (lambda: head().loss(narrow, samples(3)), 'targets'),
        (lambda: head(stage_weights=[1, 1, 1]), 'stage_weights'),
    ):
        with pytest.raises(InputError, match=message):
            call()
    for without in (dict(keypoints=torch.zeros(3, 16, 2)), [PoseDataSample()]):
        with pytest.raises(InputError, match='model.codec'):
            head().loss(heatmaps(), without)
