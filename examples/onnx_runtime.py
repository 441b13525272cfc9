"""Find a person's keypoints with ONNX Runtime, OpenCV and NumPy alone.

hg_plugin export CONFIG CHECKPOINT pose.onnx --decode [--int8 IMAGES...]
python examples/onnx_runtime.py pose.onnx image.jpg [LEFT TOP RIGHT BOTTOM]
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
meta = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
image, size, crop = cv2.imread(sys.argv[2]), np.array(meta['input_size']), meta['crop']
box = np.array(sys.argv[3:] or [0, 0, *image.shape[1::-1]], float).reshape(2, 2)
center, zoom = box.mean(axis=0), crop['padding'] * max((box[1] - box[0]) / size)
reduction = max(n for n in (1, 2, 4, 8) if n <= max(zoom, 1)) if crop['reduce'] else 1
image = cv2.resize(image, None, fx=1 / reduction, fy=1 / reduction, interpolation=cv2.INTER_AREA)
scale = (size - crop['use_udp']) / size / zoom * reduction
shift = (size - crop['use_udp']) / 2 - scale * ((center + 0.5) / reduction - 0.5)
person = cv2.warpAffine(image, np.column_stack([np.diag(scale), shift]), size.tolist())
person = person[..., ::-1] if meta['color'] == 'RGB' else person
inputs = ((person - meta['mean']) / meta['std']).transpose(2, 0, 1)[None].astype(np.float32)
keypoints, scores = session.run(None, {'image': inputs})
keypoints = (keypoints[0] / size - 0.5) * zoom * size + center
for index, name in enumerate(meta['keypoint_names']):
    if index not in meta['unannotated_keypoints']:  # which the network has not learned
        print(f'{name:16} {keypoints[index, 0]:7.1f} {keypoints[index, 1]:7.1f} {scores[0, index]:5.2f}')
