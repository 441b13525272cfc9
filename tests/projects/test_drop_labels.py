import numpy as np
from drop_labels import disagrees


def test_a_label_goes_if_the_network_is_sure_of_a_place_far_from_it():
    # the annotated box is 30 x 120, so the size is 60 and a quarter of it 15 pixels
    labels = np.array([[10, 10], [40, 130], [20, 50], [20, 90], [900, 900]], float)
    visible = np.array([True, True, True, True, False])
    predicted = labels + [[14, 0], [16, 0], [0, 16], [16, 16], [300, 0]]
    scores = np.array([0.9, 0.9, 0.3, 0.5, 0.9])
    dropped = disagrees(labels, visible, predicted, scores, 0.25, 0.4)
    assert dropped.nonzero()[0].tolist() == [1, 3]
