"""What the rest of genmini asks of a model, with defaults: every family is a `Model`, and overrides what it can do.

    class Mine(Model):
        def __init__(self, shape, levels=2, hidden=100, device=None, dtype=None):
            super().__init__(shape, levels)          # sets self.shape, self.levels, self.D
            ...
        def log_prob(self, x, y=None): ...           # training minimises -log_prob, unless there is a `loss`
        def sample(self, n, y=None): ...

    RECIPES = {"digits": {"data": "digits", "model": dict(hidden=200), "train": dict(steps=1000)}}

The constructor's arguments are converted to plain Python values (a tensor to a list, a shape to a tuple) and kept in
`settings`. x are N examples (N, *shape): whole levels 0 ... levels - 1, or real numbers where levels is None. y are
their classes (N,), or one class for all, of a model that has `classes`; of one with `captions`, text
(genmini/models/_captioned.py); of others None. What comes after x and y is passed by name. A method that a model does
not have, or not with its settings, raises `Cannot` with the reason; `cannot(name)` tells what a family does not have,
without a call. docs/extend.md adds a model step by step.
"""

import functools
import inspect
import math
from typing import NamedTuple

import torch
from torch import nn

from genmini.data import captions
from genmini.models._judge import judge
from genmini.models._lacks import LACKS, SAMPLING
from genmini.models._levels import checked, checked_classes, checked_codes
from genmini.models._panels import panels_of
from genmini.models._recorded import counted, recorded
from genmini.settings import image, whole


class Cannot(ValueError):
    """Raised for a method that the model does not have, or not with its settings; with the reason."""


class Batch(NamedTuple):
    """What one step of training learns from."""

    x: torch.Tensor  # (N, *shape)
    y: torch.Tensor  # (N,) classes, or (N, L) captions


class Model(nn.Module):
    settings: dict  # the constructor's arguments
    shape: tuple  # of an example; a side None takes any length
    levels: int | None  # of a number of an example, 0 ... levels - 1; None: real numbers
    D: int  # how many numbers an example has
    unit = "nats"  # of `loss`
    is_bound = False  # true if log_prob is a lower bound of log p(x)
    classes = 0  # how many classes y tells apart; 0: the model takes no y
    captions = 0  # from how many captions of an image training draws y; 0: y is no text
    stages = ()  # names of the parts that are learnt one after another; a model of small images may have the first ones
    latent = 0  # how many numbers z code an example; 0: none
    K = 0  # how many codes a codebook has; 0: there is none
    grid = ()  # (h, w), the places of an example's codes
    has_normal_prior = False  # true if z is drawn from N(0, I)
    attributes = ()  # names of the attributes that the first numbers z follow
    divergence = ""  # that the discriminator estimates, a name of DIVERGENCES in genmini/models/gan.py; "": none
    r1 = 0.0  # the weight of the penalty on the discriminator's slopes where the data are
    given = ""  # what of an image the model is given, a name of genmini/conditions.py; "": nothing
    of_text = False  # true if x is text: numbers of words
    vocabulary = ()  # the words that it reads
    sample_note = ""  # a sentence that belongs beside samples
    judged_by_samples = False  # true if `valid_loss` is taken of samples; the metrics then count modes, too

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__ = recorded(cls.__init__)
        if "sample" in vars(cls):
            cls.sample = counted(cls.sample)

    def __init__(self, shape, levels, classes=0):
        super().__init__()
        whole(shape=shape)
        self.shape, self.levels, self.D, self.classes = shape, levels, math.prod(shape), classes

    @classmethod
    def of_data(cls, train, **settings):
        """A new model for data like these. A model that reads text takes their words, too."""
        return cls(train.shape, levels=train.levels, **settings)

    @classmethod
    def cannot(cls, name):
        """Why the model lacks this method, or this argument of `sample`, in a sentence; "" if it has it."""
        if name in SAMPLING:
            has = not cls.cannot("sample") and name in inspect.signature(cls.sample).parameters
        else:
            has = getattr(cls, name) is not getattr(Model, name)
        if not has and name in ("encode", "reconstruct") and not cls.cannot("decode"):
            return f"{cls.__name__} decodes codes that it draws, and encodes no examples"
        if not has and name in ("encode", "decode") and not cls.cannot("codes"):
            return f"{cls.__name__} codes an image by numbers of a codebook, not by a vector z"
        return "" if has else f"{cls.__name__} {LACKS[name]}"

    @functools.cached_property
    def words(self):
        """What turns text into the numbers that the model reads, and back; None without a vocabulary."""
        return captions.words(self.vocabulary) if self.vocabulary else None

    @property
    def title(self):
        """What pictures call the model."""
        return type(self).__name__

    @property
    def takes_y(self):
        """Whether it learns x given y."""
        return bool(self.classes or self.captions)

    @property
    def device(self):
        """Where the model computes."""
        return next(self.parameters()).device

    @property
    def dtype(self):
        """In which the model computes: that of its weights."""
        return next(self.parameters()).dtype

    @property
    def parameter_count(self):
        """How many numbers the model learns."""
        return sum(parameter.numel() for parameter in self.parameters())

    def place(self, device, dtype):
        """Move the model to the device (default: that of new tensors), and its weights to dtype."""
        self.to(device=device or torch.get_default_device(), dtype=dtype)

    # ---- checks ------------------------------------------------------------------------------------------------------

    def check(self, x, y=None, needed=False):
        """Examples (N, *shape), or flat, and their classes -> (N, D), (N,) or None. Values are checked on a CPU only"""
        x = checked(x, self.shape, self.levels)
        return x, self.check_y(y, len(x), needed)

    def check_y(self, y, n, needed=False):
        """A class for all, or one each -> (n,) int64 on the model's device; None stays None, unless it is needed."""
        return checked_classes(y, n, self.classes, needed, self.device)

    def classes_or_drawn(self, y, n):
        """The same; for None, a model with classes draws them evenly."""
        if self.classes and y is None:
            y = torch.randint(self.classes, (n,), device=self.device)
        return self.check_y(y, n)

    def check_z(self, z):
        """Codes (N, d), as they are."""
        return checked_codes(z, self.latent)

    def v_of(self, x):
        """Levels (N, *shape), or flat -> v = x / (L - 1), (N, *shape), in the model's dtype"""
        return x.reshape(len(x), *self.shape).to(self.dtype) / (self.levels - 1)

    def centred(self, x):
        """Examples (N, *shape), or flat -> x_0 = 2 v - 1, (N, *shape), levels on [-1, 1]; real numbers stay"""
        return x.reshape(len(x), *self.shape).to(self.dtype) if self.levels is None else 2 * self.v_of(x) - 1

    def x_0(self, x):
        """The same of images, with colours: (N, C, H, W)"""
        return self.centred(x).view(len(x), *image(self.shape))

    def in_levels(self, x_0):
        """x_0 -> x, (N, *shape), not rounded: what `centred` made of levels, in levels; real numbers stay"""
        x_0 = x_0.reshape(len(x_0), *self.shape)
        return x_0 if self.levels is None else (x_0 + 1) * ((self.levels - 1) / 2)

    # ---- learning ----------------------------------------------------------------------------------------------------

    def loss(self, x, y=None):
        """(N, *shape) -> (N,) in `unit`: what training minimises and the valid split is judged by."""
        return -self.log_prob(x, y=y)

    def valid_loss(self, x, y=None):
        """A number in `unit` of unseen examples (N, *shape): training keeps the weights for which it is lowest. Here it
        is the mean of `loss`. A model whose loss does not tell how good it is, as an adversary's, overrides it."""
        return judge(self, x, y).mean().item()

    def warning(self, rows):
        """A sentence about what goes wrong in training, "" if nothing. rows: of the metrics, the last is the newest."""
        return ""

    def updates(self, batch):
        """Yields (name, loss, parameters), one update after another: the loop steps these parameters down this loss
        before it takes the next, so that a later loss sees the earlier steps; each name has an optimiser of its own."""
        yield "loss", self.loss(batch.x, y=batch.y if self.takes_y else None).mean(), self.parameters()

    def begin(self, stage, train):
        """Called before each of `stages`: from here on `loss` and `updates` are those of this stage."""

    def begin_at_marginals(self, x):
        """Set the biases of the output so that at first each pixel has the shares of levels that it has among x."""
        raise Cannot(self.cannot("begin_at_marginals"))

    def fit(self, x):
        """Solves for the parameters at once; only a model that needs no steps has it (AR)."""
        raise Cannot(self.cannot("fit"))

    def report(self, x, y=None):
        """Numbers of all these examples together, {name: number}: the metrics and `genmini eval` show them, too."""
        return {}

    # ---- probability -------------------------------------------------------------------------------------------------

    def log_prob(self, x, y=None):
        """(N, *shape) -> (N,) in nats: log p(x), or log p(x | y)."""
        raise Cannot(self.cannot("log_prob"))

    def over_classes(self, log_p, frequency=None):
        """log sum_y p(y) p(x | y), (N,), where log_p(y) gives log p(x | y). p(y) is `frequency` (classes,), or even."""
        of_class = torch.stack([log_p(y) for y in range(self.classes)])
        if frequency is None:
            return of_class.logsumexp(0) - math.log(self.classes)
        return (of_class + frequency.log()[:, None]).logsumexp(0)

    def log_prob_each(self, x):
        """(N, *shape) -> (N, ...): its parts, where an example is a series of them."""
        raise Cannot(self.cannot("log_prob_each"))

    def figures(self, x, y=None, *, k=0):
        """{name: (N,)}, what `genmini eval` shows; "nll" is -log p in nats. k: draws for an example, of some bounds"""
        return {"loss": self.loss(x, y=y)} if self.cannot("log_prob") else {"nll": -self.log_prob(x, y=y)}

    # ---- samples and codes -------------------------------------------------------------------------------------------

    def sample(self, n, y=None):
        """n draws, (n, *shape). Some models take more: those of SAMPLING, x beside known, and what only they use."""
        raise Cannot(self.cannot("sample"))

    def pixel_order(self):
        """The place of the number that is drawn first, second, ..., in an example made flat, (D,)."""
        return torch.arange(self.D)

    def mixture(self, classes):
        """The vector (C,) that stands for several classes at once."""
        raise Cannot(self.cannot("mixture"))

    def encode(self, x, y=None):
        """(N, *shape) -> (N, d)"""
        raise Cannot(self.cannot("encode"))

    def q(self, x, y=None):
        """(N, *shape) -> mu, log sigma^2 of q(z|x), each (N, d)"""
        raise Cannot(self.cannot("q"))

    def encode_text(self, y):
        """A text, a list of M, or numbers of words (M, L) -> (M, d), vectors beside those of images"""
        raise Cannot(self.cannot("encode_text"))

    def decode(self, z, y=None):
        """(N, d) -> (N, *shape), the mean image in levels; of a flow the one example that has this code."""
        raise Cannot(self.cannot("decode"))

    def reconstruct(self, x, y=None):
        """(N, *shape) -> (N, *shape), the mean image in levels of what was coded."""
        raise Cannot(self.cannot("reconstruct"))

    def translate(self, x, y=None):
        """(N, *shape) -> (N, *shape) in levels, not rounded: x of the set y, 0 or 1, as images of the other set."""
        raise Cannot(self.cannot("translate"))

    def d(self, x, y=None):
        """(N, *shape) -> (N,), what the discriminator gives for examples: near 1 where they look like data."""
        raise Cannot(self.cannot("d"))

    def on_the_line(self, draw, r1):
        """A model of single numbers (1,) whose discriminator has this one's layers and the penalty r1; in the place of
        a generator it has draw(n), (n, 1). Its first update is the discriminator's."""
        raise Cannot(self.cannot("on_the_line"))

    def classify(self, x):
        """(N, *shape), perhaps between levels -> features (N, F); log p(y | x) + c(x), the logits (N, classes)"""
        raise Cannot(self.cannot("classify"))

    def codes(self, x, y=None):
        """(N, *shape) -> (N, h, w) int64, numbers of a codebook."""
        raise Cannot(self.cannot("codes"))

    def decode_codes(self, k, y=None):
        """(N, h, w) -> (N, *shape), the mean image in levels."""
        raise Cannot(self.cannot("decode_codes"))

    def correlations(self, x):
        """{attribute: its rank correlation with the number z that follows it}"""
        raise Cannot(self.cannot("correlations"))

    def measure(self, x):
        """(N, *shape) -> (N, R): the R attributes of each example"""
        raise Cannot(self.cannot("measure"))

    def forward(self, x, y=None):
        """A flow h: (N, *shape) -> z (N, D), log |det dh/dx| (N,)"""
        raise Cannot(self.cannot("forward"))

    def inverse(self, z, y=None):
        """(N, D) -> x (N, *shape) with h(x) = z, log |det dx/dz| (N,)"""
        raise Cannot(self.cannot("inverse"))

    def forecast(self, x, steps, level=0.95):
        """(N, T) -> mean, lower, upper of the next numbers, each (N, steps). level: the probability to lie between"""
        raise Cannot(self.cannot("forecast"))

    def autocovariance(self, lags):
        """gamma_0 ... gamma_lags of the series that the model draws, (lags + 1,)"""
        raise Cannot(self.cannot("autocovariance"))

    def process(self, x, y=None, *, times=8):
        """(N, *shape) -> four of (times, N, *shape), in levels: x_t while x becomes noise and the x_0 estimated from
        it; x_t while noise becomes other images and the x_0 estimated from it."""
        raise Cannot(self.cannot("process"))

    def restore(self, x, y=None):
        """(N, *shape) -> (N, *shape) in levels, one image for each: what the model makes of what it is `given` of x."""
        raise Cannot(self.cannot("restore"))

    def inpaint(self, x, y=None, *, known, n):
        """(N, *shape), a mask (*shape) of what is known -> (n, N, *shape): draws of the rest, which is not read"""
        raise Cannot(self.cannot("inpaint"))

    def log_hidden(self, x, y=None, *, known):
        """The same -> log p(x_hidden | x_known) in nats, (N,): exact, or estimated by draws"""
        raise Cannot(self.cannot("log_hidden"))

    def variations(self, x, n):
        """(N, *shape) -> (N, n, *shape): other images that have the code of each"""
        raise Cannot(self.cannot("variations"))

    def interpolate(self, a, b, n):
        """M images, or a list of M texts, twice -> (M, n, *shape): images of the codes from those of a to those of b"""
        raise Cannot(self.cannot("interpolate"))

    @torch.no_grad()
    def panels(self, splits):
        """Images to look at side by side -> {title: images}, and the columns of a panel: how many, or their names."""
        return panels_of(self, splits)
