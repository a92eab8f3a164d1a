"""CVAE: a VAE given y, so that z need not code y, and images of a chosen y can be drawn.

The course, "VAE conditionnels": its ELBO, "concaténation du conditionnement au code latent", "choix de y (ou tirage
aléatoire)"; Sohn, Lee, Yan, "Learning Structured Output Representation using Deep Conditional Generative Models",
2015.

    q(z|x, y) = N(mu(x, y), diag sigma^2(x, y)),   p(x|z, y)                                (1)
    log p(x|y) >= E_q [log p(x|z, y)] - KL(q(z|x, y) || p(z))                               (2)
    y ~ p(y),   z ~ p(z),   x ~ p(x|z, y)                                                   (3)
    y = c(x):   q(z|x),   z ~ p(z),   x ~ p(x|z, c)                                         (4)

y is a class, which enters as a one-hot vector, or any vector of C numbers: it is concatenated to what enters the
encoder (for convolutions as C constant planes), and to z. So a mixture of one-hot vectors gives images with properties
of several classes. If no y is given, (3) draws one of the last 2048 y of training.

With `given`, y is a part c of the image itself (4), and no class: every z makes another image of the same part, which
Sohn et al. call a probabilistic prediction. The encoder sees c, since it sees x; the decoder gets the numbers of c
beside z. Where c is the upper half, its pixels are no part of log p, and samples keep them.

    parts: genmini/conditions.py    bodies: genmini/nets/coders.py    test: tests/models/test_cvae.py
"""

import torch
import torch.nn.functional as F

from genmini import conditions
from genmini.models._levels import checked
from genmini.models._model import Cannot, Model
from genmini.models.vae import VAE
from genmini.settings import image, whole

KEPT = 2048  # y of training, for (3)


class CVAE(VAE):
    def __init__(self, shape, levels=2, classes=10, given="", device=None, dtype=None, **settings):
        """classes: C, how many y tells apart, or how long a vector y is; given: a name of genmini/conditions.py, or ""
        for a class; settings: those of VAE."""
        whole(classes=classes)
        c = conditions.part(torch.zeros(1, *image(shape)), given) if conditions.channels(given, shape) else None
        super().__init__(shape, levels=levels, context=(classes, classes) if c is None else (0, c.numel()), **settings)
        self.given, self.classes = given, 0 if given else classes
        if given == "upper":
            self.unit += " of the missing half"
        if given:
            known = torch.zeros(image(shape), dtype=torch.bool)
            known[:, : known.shape[1] // 2] = given == "upper"
            self.register_buffer("known", known.view(shape), persistent=False)
        else:
            self.register_buffer("seen", torch.full((KEPT, classes), 1 / classes))  # at first the mean of all classes
            self.register_buffer("count", torch.tensor(0))
        self.place(device, dtype)

    @property
    def sample_note(self):
        """What belongs beside samples of this model."""
        return "" if self.given else "y was drawn from those of the training data, as frequent as there"

    def check_y(self, y, n, needed=True):
        """A class, classes (n,), a vector (C,) or vectors (n, C) -> (n, C): what is concatenated in (1), or c of (4)"""
        if self.given:
            if y is None or not y.is_floating_point():
                super().check_y(y, n)  # there are no classes
                raise ValueError(f"x is missing: the images of which this model is given {self.given}")
            return y
        y = None if y is None else torch.as_tensor(y)
        if y is None or not y.is_floating_point():
            return F.one_hot(super().check_y(y, n, needed=True), self.classes).to(self.dtype)  # (1)
        if y.shape not in ((self.classes,), (n, self.classes)):
            raise ValueError(f"y must be classes, (N,) whole numbers, or vectors, (N, {self.classes}), "
                             f"got {tuple(y.shape)} of {y.dtype}")
        return y.to(self.device, self.dtype).expand(n, self.classes)

    def mixture(self, classes):
        """The vector (C,) of an even mixture of classes"""
        return self.check_y(torch.tensor(classes), len(classes)).mean(0)

    def y_of(self, x, y):
        """y as it is, or c(x) (n, C), as numbers from 0 to 1"""
        if not self.given:
            return y
        Model.check_y(self, y, len(x))  # there are no classes
        x = checked(x, self.shape, self.levels)
        return conditions.part(self.v_of(x).view(len(x), *image(self.shape)), self.given).flatten(1)  # (4)

    def q(self, x, y=None):
        """Levels x (N, *shape) -> mu, log sigma^2, each (N, d)"""
        if self.given:
            return self.encoder(self.v_of(checked(x, self.shape, self.levels))).chunk(2, 1)  # (4)
        return super().q(x, y)

    def terms(self, x, y=None, *, eps=None):
        return super().terms(x, self.y_of(x, y), eps=eps)

    def log_weights(self, x, y=None, *, k):
        return super().log_weights(x, self.y_of(x, y), k=k)

    def log_p(self, x, z, y=None):
        """log p(x|z, y), (N,), of levels x; of those that are not known"""
        each = self.p.log_p(self.f(z, self.check_y(y, len(z))), x.reshape(len(x), *self.shape))
        return (each.masked_fill(self.known, 0) if self.given else each).flatten(1).sum(1)

    def loss(self, x, y=None, *, eps=None):
        if self.training and not self.given:
            self._keep(self.check_y(y, len(x)))
        return super().loss(x, y, eps=eps)  # (2)

    @torch.no_grad()
    def _keep(self, y):
        at = (self.count + torch.arange(len(y), device=y.device)) % KEPT
        self.seen[at] = y.to(self.seen.dtype)
        self.count += len(y)

    def decode(self, z, y=None):
        """The mean of p(x|z, y) in levels, (N, *shape); known pixels as they are. y: of (4), what `y_of` gives"""
        x = super().decode(z, y)
        if self.given == "upper":
            x = x.masked_scatter(self.known.expand_as(x), (self.levels - 1) * y.to(x.dtype))
        return x

    def reconstruct(self, x, y=None):
        return self.decode(self.encode(x, y), self.y_of(x, y))

    @torch.no_grad()
    def sample(self, n, y=None, *, mean=False, x=None):
        """n draws, (n, *shape), or means. y: a class or a vector for all, or one each; None: drawn from the data.
        x (n, *shape): the images of which the model is `given` a part."""
        if self.given:
            if x is None or len(x) != n:
                raise ValueError(f"x is missing: the {n} images of which this model is given {self.given}")
            drawn = super().sample(n, self.y_of(x, y), mean=mean)
            return torch.where(self.known, x.reshape(drawn.shape).to(drawn.dtype), drawn)
        if y is None:
            known = self.count.clamp(1, KEPT)
            y = self.seen[(torch.rand(n, device=self.seen.device) * known).long()]
        return super().sample(n, y, mean=mean)  # (3)

    def inpaint(self, x, y=None, *, known, n):
        """(N, *shape) -> (n, N, *shape), as `Model.inpaint` says, given the class y"""
        if self.given:
            raise Cannot(f"this CVAE is given {self.given} of an image, and no mask: take a model of whole images")
        return super().inpaint(x, y, known=known, n=n)

    def restore(self, x, y=None):
        """(N, *shape) -> (N, *shape), for each image the mean image of one z and of what the model is given of it."""
        if not self.given:
            raise Cannot(f"this CVAE is given no part of an image: set given to {' or '.join(conditions.GIVEN)}")
        return self.sample(len(x), y, mean=True, x=x)


RECIPES = {  # tuned on the valid split alone; y makes some of z superfluous
    "digits": {
        "data": "digits-threshold",
        "model": dict(latent=6, body="conv", width=24),
        "train": dict(steps=3000, batch=64, rate=3e-3, shift=0.2),
        "threads": 1,
    },
    "digits-levels": {
        "data": "digits",
        "model": dict(latent=10, body="conv", width=24, decoder="categorical"),
        "train": dict(steps=2500, batch=64, rate=3e-3, shift=0.2),
        "threads": 1,
    },
    "digits-upper": {
        "data": "digits",
        "model": dict(given="upper", latent=6, body="conv", width=24, decoder="categorical"),
        "train": dict(steps=2000, batch=64, rate=3e-3, shift=0.2),
        "threads": 1,
    },
    "mnist": {
        "data": "mnist-dynamic",
        "model": dict(latent=20, hidden=400),
        "train": dict(steps=25_000, batch=128, rate=1e-3, every=1000, marginals=True),
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(latent=64, body="conv", width=32, decoder="gaussian-learned"),
        "train": dict(steps=10_000, batch=64, rate=1e-3, every=500),
    },
}
