"""Tests of what a VAE draws of hidden numbers, against the integral over z; planted mistakes, which the checks see."""

import math

import pytest
import torch
from check_inpaint import check_draws, follows, mask, truth
from check_models import space
from planted import planted

from genmini import models
from genmini.models import _search
from genmini.models._model import Cannot


def latent(name="vae", scale=1.0, **settings):
    torch.manual_seed(3)
    model = models.find(name)((2, 3), latent=1, hidden=8, dtype=torch.float64, **settings).eval()
    with torch.no_grad():
        for parameter in model.f.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return model


def integrated(model, y=None):
    """log p(x) of all x, by a fine grid of z"""
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    every, y = space(model), None if y is None else torch.full((len(z),), y)
    with torch.no_grad():
        a = model.f(z, model.check_y(y, len(z)))
        log_p = torch.stack([model.p.log_p(a, x.expand(len(z), 2, 3)).flatten(1).sum(1) for x in every])  # log p(x|z)
        log_p = log_p - z.T.square() / 2 - math.log(2 * math.pi) / 2 + math.log(16 / 4000)
    return log_p.logsumexp(1)


def near(found, exact):
    """Five standard errors, and the bias of the log of a mean: about half of its variance"""
    assert abs(found.mean().item() - exact) < 5 * found.std().item() / len(found) ** 0.5 + found.var().item() + 1e-12


@pytest.mark.parametrize("hides", ["last", "left", "nothing"])
def test_a_vae_draws_what_the_integral_over_z_gives(hides):
    model = latent()
    log_p = integrated(model)
    x, known = space(model)[log_p.argsort()[48]], mask(model, hides)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)
    check_draws(model, known, x, log_p)
    every, p = truth(model, x, known, log_p)
    found = model.log_hidden(x.expand(200, 2, 3), known=known)
    exact = p[(every == x).flatten(1).all(1)].log().item()
    near(found, exact)
    assert found.std() < 0.1


def test_a_conditional_vae_draws_given_the_class():
    model = latent("cvae", classes=2)
    log_p = integrated(model, 1)
    x, known = space(model)[log_p.argsort()[48]], mask(model, "left")
    check_draws(model, known, x, log_p, y=1)


def test_a_loss_without_a_likelihood_says_so():
    model = models.find("vae")((2, 3), levels=5, latent=1, hidden=8, decoder="cross-entropy")
    with pytest.raises(Cannot, match="does not integrate to one"):
        model.inpaint(torch.zeros(1, 2, 3), known=mask(model, "left"), n=2)


# ---- planted mistakes ------------------------------------------------------------------------------------------------

PLANTED_Z = {
    "the known weigh nothing": ("torch.where(mask, each, 0)", "0 * each"),
    "the hidden weigh": ("torch.where(mask, each, 0)", "each"),
    "no p(z)": (" + log_normal(z, torch.zeros_like(z), torch.zeros_like(z)) - q", " - q"),
    "no q(z)": (", torch.zeros_like(z)) - q", ", torch.zeros_like(z))"),
    "one part of q(z)": (".logsumexp(2) - math.log(STARTS + 1)", "[:, :, 0]"),
    "draws by no weight": ("log_w.softmax(1), n", "torch.ones_like(log_w), n"),
    "what is known drawn, too": ("torch.where(mask, x_b.to(drawn.dtype), drawn.view(n, *x_b.shape))",
                                 "drawn.view(n, *x_b.shape)"),
    "codes of another example": ("a = self.f(z.flatten(0, 1)", "a = self.f(z.flip(1).flatten(0, 1)"),
}


def check_poor_search():
    """A search that ends where it began costs draws, and no correctness."""
    model = latent(scale=1.5)
    log_p = integrated(model)
    x, known = space(model)[log_p.argsort()[10]], mask(model, "left")
    check_draws(model, known, x, log_p)
    every, p = truth(model, x, known, log_p)
    exact = p[(every == x).flatten(1).all(1)].log().item()
    near(model.log_hidden(x.expand(300, 2, 3), known=known), exact)
    both = torch.stack([x, 1 - x]).repeat_interleave(500, 0)
    follows(model.inpaint(both, known=known, n=1)[0, :500], *truth(model, x, known, log_p))


def test_a_poor_search_is_weighted(monkeypatch):
    for name, value in (("STARTS", 1), ("STEPS", 1), ("DRAWS", 200)):
        monkeypatch.setattr(_search, name, value)
    check_poor_search()


@pytest.mark.parametrize("right, wrong", PLANTED_Z.values(), ids=PLANTED_Z)
def test_planted_mistakes_of_the_search_are_seen(monkeypatch, right, wrong):
    code = planted(_search, right, wrong)
    for name in ("inpaint", "log_hidden", "_batches", "_search"):
        monkeypatch.setattr(_search.Searched, name, vars(code.Searched)[name])
    code.STARTS, code.STEPS, code.DRAWS = 1, 1, 200
    with pytest.raises(AssertionError):
        check_poor_search()
