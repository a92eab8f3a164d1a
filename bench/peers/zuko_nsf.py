"""zuko's neural spline flow as a Model, to be trained by the loop, the batches and the rates of our MAF by splines.

zuko (https://github.com/probabilists/zuko, `pip install zuko`) computes the same function, Durkan et al. 2019: MADEs
whose outputs are rational-quadratic splines, one after another. What differs is how it is computed.
"""

import time

import torch
from trained import Trained, train

from genmini import experiment
from genmini.models._model import Model

FIRST = 200  # steps that tell how long one takes


class NSF(Model):
    def __init__(self, shape, levels=None, layers=3, hidden=(64, 64), bins=8):
        import zuko

        super().__init__(shape, levels)
        self.flow = zuko.flows.NSF(self.D, transforms=layers, hidden_features=hidden, bins=bins)

    def log_prob(self, x, y=None):
        return self.flow().log_prob(x)


def train_as_long(recipe):
    """Trains MAF by splines by this recipe, then zuko's flow of the same sizes for as many seconds of
    the processor -> Trained, of zuko's flow. FIRST steps of a training that is thrown away tell how many that are."""
    ours = train("maf", recipe, 0)
    sizes = {name: ours.model.settings[name] for name in ("layers", "hidden", "bins")}

    def trained(steps):
        plan = experiment.plan("maf", ours.plan.data, recipe, steps=steps)
        torch.manual_seed(plan.seed)
        model = NSF(ours.splits["train"].shape, **sizes)
        since = time.process_time()
        history = experiment.train(plan, model, ours.splits, progress=False)
        return Trained(plan, ours.splits, model, history, time.process_time() - since, ours.commit)

    return trained(round(FIRST * ours.seconds / trained(FIRST).seconds))
