"""Does a model copy the images that it learnt from? The distance of each sample to the nearest train image.

    distance_n = min_k |x_n - e_k|                                                                          (1)

e_k are the train images. The search is that of the room nearest_code, so the image found is exactly the nearest one. A
model that copies has distances near 0. Unseen real images have distances of their own: samples that lie much nearer
than these were partly copied. Distances are in levels of a pixel and grow with the number of pixels.

    test: tests/project/test_metrics.py
"""

from genmini import ops


def nearest(train, x):
    """Images (K, *shape) and (n, *shape) of levels -> index (n,) of the nearest of `train`, the lowest of equally near
    ones, and distance (n,) float64."""
    if not len(train) or train.shape[1:] != x.shape[1:]:
        raise ValueError("nearest takes train images (K, *shape), at least one, and images (n, *shape), got "
                         f"{tuple(train.shape)} and {tuple(x.shape)}")
    e, x = train.flatten(1).float(), x.flatten(1).float()
    index = ops.nearest_code(x, e)
    return index, (x.double() - e[index].double()).norm(dim=1)  # (1)
