"""The network whose features the metrics compare: the shipped classifier, a trained one, or Inception v3.

    digits-v1    a small classifier of 8x8 digits, by `genmini train classifier --data digits`: 200 kB, always the same
    RUN          the folder of another classifier, as `genmini train classifier --data mnist` writes it
    inception    Inception v3 of torch-fidelity (pip install .[inception]), which downloads the weights behind
                 published FIDs

A score compares only with scores by the same network; so the network's `name` is printed beside each score.

A network takes images of its own shape with any number of levels, which are rescaled to its own: digits-v1 maps a
binary 1 to 16. digits-v1 also takes 28x28 pixels and reduces them to 8x8. Its own digits were made from 32x32 bitmaps
that the digit fills, by counting the ink in 4x4 blocks; MNIST's digits fill the central 20x20 pixels, so these are cut
out and averaged over 8x8 equal areas. Other shapes need another network.
"""

from pathlib import Path

import torch

from genmini import checkpoint, files, models

SHIPPED = {"digits-v1": checkpoint.SHIPPED / "digits-v1"}  # whatever folders there are: scores are to compare


def network(which="digits-v1", device="cpu"):
    """Return a Network: images (n, *shape) and their levels -> features (n, F) and logits (n, classes), float64."""
    if which == "inception":
        return Inception(device)
    files.check_name(which)
    if which not in SHIPPED and not (Path(which) / "run.json").exists():
        raise ValueError(f"features must be {', '.join(SHIPPED)}, inception, or the folder of a classifier's run; "
                         f"got {which!r}")
    metadata = checkpoint.read(SHIPPED.get(which, which))
    reason = models.find(metadata["model"]).cannot("classify")
    if reason:
        raise ValueError(f"features come from a classifier, and {which} is a run of {metadata['model']}: {reason}")
    trained_on = metadata.get("data", "unknown data")
    name = which if which in SHIPPED else f"the classifier in {which}, trained on {trained_on}"
    return Network(checkpoint.load(SHIPPED.get(which, which), device), name)


class Network:
    """A classifier as the metrics use it: images and their levels -> features, logits"""

    def __init__(self, classifier, name):
        self.classifier, self.classes = classifier, classifier.classes
        self.name = f"{name}: not comparable with Inception FID"

    @torch.no_grad()
    def __call__(self, x, levels):
        x = as_seen_by(self.classifier, x, levels).to(self.classifier.device, self.classifier.dtype)
        pairs = [self.classifier.classify(one) for one in x.split(1)]  # one at a time: no result depends on the batch
        return tuple(torch.cat(part).double().cpu() for part in zip(*pairs, strict=True))

    def labels(self, y, n):
        """Classes of n images, as the classifier's `check_y` takes them -> (n,); of None, all of them evenly"""
        return self.classifier.check_y(torch.arange(n) % self.classes if y is None else y, n)

    def log_p(self, x, levels, y):
        """log p(y | x), (n,), of images (n, *shape) of real levels, from which gradients flow back"""
        x = as_seen_by(self.classifier, x, levels).to(self.classifier.device, self.classifier.dtype)
        return self.classifier.classify(x)[1].log_softmax(1).gather(1, y[:, None])[:, 0]


def as_seen_by(classifier, x, levels):
    """(n, *shape) of any levels -> (n, *the classifier's shape), numbers 0 ... the classifier's brightest"""
    x = x.double() * ((classifier.levels - 1) / (levels - 1))
    if x.shape[1:] == classifier.shape:
        return x
    if x.shape[1:] == (28, 28) and classifier.shape == (8, 8):
        return mnist_to_8x8(x)
    takes, has = classifier.shape, tuple(x.shape[1:])
    raise ValueError(f"the classifier takes images of shape {takes}, these have {has}: "
                     "--features RUN names another one")


def mnist_to_8x8(x):
    """(n, 28, 28) -> (n, 8, 8): the central 20x20 pixels, averaged over squares of 2.5 pixels"""
    halves = x[:, 4:24, 4:24].repeat_interleave(2, 1).repeat_interleave(2, 2)  # (n, 40, 40)
    return halves.unflatten(1, (8, 5)).unflatten(3, (8, 5)).mean((2, 4))


class Inception:
    """The features "2048" and "logits_unbiased" of torch-fidelity's Inception v3.

    torch-fidelity computes FID, KID and IS from the same ones.
    """

    classes = None  # its classes are ImageNet's, none of the data's

    def __init__(self, device="cpu"):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise ValueError("--features inception needs the package torch-fidelity: "
                             "pip install .[inception]") from None
        self.net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"]).to(device)
        self.name, self.device = "Inception v3 of torch-fidelity (inception-v3-compat)", device

    @torch.no_grad()
    def __call__(self, x, levels):
        x = (x.double() * (255 / (levels - 1))).round().to(torch.uint8)
        x = (x[:, None] if x.dim() == 3 else x).expand(-1, 3, -1, -1)
        both = [self.net(one.to(self.device)) for one in x.split(1)]
        return tuple(torch.cat(part).double().cpu() for part in zip(*both, strict=True))
