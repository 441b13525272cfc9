import numpy as np
from mmpose.datasets.datasets.utils import parse_pose_metainfo

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.visualization import bones, draw_poses, draw_skeleton, heatmap_sheet, person_color, stage_sheet


def test_a_sheet_shows_where_a_stack_moved_a_peak():
    heatmaps = np.zeros((3, 2, 16, 16), np.float32)
    heatmaps[0, :, 4, 4] = heatmaps[1, 0, 4, 5] = heatmaps[2, 0, 4, 5] = 0.5
    heatmaps[1, 1, 4, 9] = heatmaps[2, 1, 12, 9] = 0.9
    sheet = heatmap_sheet(np.full((64, 64, 3), 120, np.uint8), heatmaps, ['left wrist', 'right_wrist'])
    tops = [2 + 20 + stack * 148 for stack in range(3)]
    corners = [
        [tuple(sheet[top, 68 + 2 + 132 * keypoint]) == (0, 220, 255) for keypoint in range(2)] for top in tops
    ]
    assert corners == [[False, False], [False, True], [False, True]]  # by one pixel is no correction
    for top, (x, y) in zip(tops, [(4, 4), (9, 4), (9, 12)]):
        assert sheet[top + y * 8 + 4, 68 + 2 + 132 + x * 8 + 4].min() > 240  # the cross


def test_a_skeleton_has_the_colours_of_the_dataset():
    image = np.zeros((60, 60, 3), np.uint8)
    meta = dict(
        skeleton_links=[(0, 1), (1, 2)],
        skeleton_link_colors=np.array([[255, 0, 0], [0, 255, 0]], np.uint8),
        keypoint_colors=[[0, 0, 255]] * 3,
    )
    keypoints = np.array([[10, 30], [50, 30], [50, 50]], np.float32)
    assert draw_skeleton(image, keypoints, [True, True, False], meta) is image
    np.testing.assert_allclose(image[30, [10, 50]], [[255, 0, 0]] * 2, atol=50)  # BGR
    np.testing.assert_allclose(image[30, 30], [0, 0, 255], atol=50)
    assert not image[40:].any()
    draw_skeleton(image, keypoints, [True] * 3, dict(meta, skeleton_links=[], skeleton_link_colors=[]))
    assert image[50, 50, 0] > 200 and not image[38:42].any()


def test_bones_lead_past_keypoints_that_no_training_had():
    meta = parse_pose_metainfo(MPIIPoseDataset.METAINFO)
    links, name = {bone[:2] for bone in bones(meta)}, meta['keypoint_id2name']
    meta['unannotated_keypoints'] = ['pelvis', 'thorax']
    past = {bone[:2] for bone in bones(meta)}
    assert {(name[a], name[b]) for a, b in past - links} == {
        ('right_hip', 'left_hip'),
        ('right_hip', 'right_shoulder'),
        ('left_hip', 'left_shoulder'),
    }
    assert not {6, 7} & {end for bone in past for end in bone}


def test_every_person_has_a_colour_and_a_box():
    image = np.zeros((120, 300, 3), np.uint8)
    meta = dict(
        skeleton_links=[(0, 1)], skeleton_link_colors=[[9, 9, 9]], keypoint_colors=[[255, 255, 255]] * 3
    )
    keypoints = np.array([[[30, 60], [70, 60], [50, 90]], [[230, 60], [270, 60], [250, 90]]], np.float32)
    boxes = np.array([[10, 20, 90, 110], [-50, 0, 300, 120]], np.float32)
    visible = np.array([[True, True, False], [True, True, True]])
    assert draw_poses(image, keypoints, visible, meta, boxes, persons=[3, 4]) is image
    for number, (line, edge) in zip((3, 4), [((60, 50), (20, 50)), ((60, 250), (60, 299))]):
        np.testing.assert_allclose(image[line], [9, 9, 9], atol=30)
        np.testing.assert_allclose(image[edge], person_color(number), atol=60)
    assert not image[85:95, 45:55].any() and image[90, 250].min() > 200  # of the keypoints
    colors = np.array([person_color(number) for number in range(8)], int)
    distances = np.abs(colors[:, None] - colors[None]).max(axis=2)
    assert distances[~np.eye(8, dtype=bool)].min() > 40


def test_a_stage_sheet_shows_input_truth_and_stacks():
    meta = dict(
        skeleton_links=[(0, 1)],
        skeleton_link_colors=[[255, 128, 0]],
        keypoint_colors=[[255, 128, 0], [0, 255, 0], [51, 153, 255]],
    )
    heatmaps = np.zeros((2, 3, 16, 16), np.float32)
    heatmaps[0, 0, 4, 4] = heatmaps[1, 1, 8, 12] = heatmaps[:, 2, 14, 2] = 1
    points = np.array([[16, 16], [50, 32], [10, 58]], float)
    annotated = np.array([True, True, False])
    crop = np.full((64, 64, 3), 100, np.uint8)
    sheet = stage_sheet(crop, points, annotated, heatmaps, np.stack([points] * 2), meta)
    assert sheet.shape == (2 + 256 + 20 + 256 + 2, 3 * 260, 3)
    image, truth = sheet[2:258, 2:258], sheet[278:534, 2:258]
    assert (image == 100).all() and (truth == (0, 128, 255)).all(axis=2).any()
    for stack, (x, y, color) in enumerate([(72, 72, (0, 128, 255)), (200, 136, (0, 255, 0))], 1):
        left = 260 * stack + 2
        np.testing.assert_allclose(sheet[278 + y, left + x], color, atol=70)
        assert (sheet[2:258, left : left + 256] == (0, 128, 255)).all(axis=2).any()
        blue = sheet[278 + 232, left + 40]  # not annotated
        assert np.ptp(blue.astype(int)) < 5
