"""Tests of the AR-VAE: the regularisation is the course's, pair by pair; ranks are Spearman's; after training, latents
follow attributes."""

import json
import math

import pytest
import torch

from genmini import attributes, checkpoint, data
from genmini.models.arvae import ARVAE, ranks
from genmini.train import fit


def arvae(seed=1, **settings):
    torch.manual_seed(seed)
    return ARVAE((8, 8), **{"levels": 17, "decoder": "categorical", "latent": 7, "hidden": 12, "dtype": torch.float64,
                            **settings})


def test_the_disorder_is_the_course_s_pair_by_pair():
    model, m = arvae(delta=3.0), 9
    x, eps = data.load("digits", "train").x[:m], torch.randn(m, 7, dtype=torch.float64)
    reconstruction, kl, z = model.terms(x, eps=eps)
    a = attributes.measure(x.double() / 16)
    total = 0
    for r in range(6):
        pairs = [abs(math.tanh(3 * (z[i, r] - z[j, r]).item())
                     - ((a[i, r] > a[j, r]).item() - (a[i, r] < a[j, r]).item()))
                 for i in range(m) for j in range(m)]
        total += sum(pairs) / m**2
    loss = model.loss(x, eps=eps)
    assert loss.shape == (m,)
    assert loss.mean().item() == pytest.approx((reconstruction + kl).mean().item() + 10 * total, rel=1e-12)
    part = arvae(attributes=("slant", "area"))
    assert torch.equal(part.measure(x), a[:, [3, 0]])
    ordered = a / a.std(0)
    assert model.disorder(1e6 * ordered, a).max() < 1e-6 < model.disorder(-ordered, a).min()


def test_the_gradient_is_the_derivative():
    model = arvae(hidden=3, latent=2, attributes=("area", "slant"), levels=2, decoder="bernoulli")
    x, eps = data.load("digits-threshold", "train").x[:5], torch.randn(5, 2, dtype=torch.float64)
    names, values = zip(*model.named_parameters(), strict=True)
    model.forward = lambda x, eps: model.loss(x, eps=eps)
    loss = lambda *values: torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x, eps))
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


def test_ranks_give_spearman_s_correlation():
    """Equal to Pearson's of the ranks by counting; 1 for any growing function, -1 for a falling one."""
    torch.manual_seed(0)
    a, b = torch.randint(6, (50,)).double(), torch.randn(50, dtype=torch.float64)
    counted = lambda v: torch.tensor([(v < one).sum() + ((v == one).sum() + 1) / 2 for one in v], dtype=torch.float64)
    expected = torch.corrcoef(torch.stack([counted(a), counted(b)]))[0, 1]
    assert (ranks(a) * ranks(b)).mean().item() == pytest.approx(expected.item(), abs=1e-12)
    assert ((ranks(b) * ranks(b.exp())).mean().item() == pytest.approx(1)
            and (ranks(b) * ranks(-(b**3))).mean().item() == pytest.approx(-1))
    assert not ranks(torch.ones(4)).any()


def test_latents_come_to_follow_attributes(tmp_path):
    """After 250 steps every latent correlates by rank with its attribute on unseen digits, and moving it moves the
    attribute of the decoded images."""
    train, valid, test = (data.load("digits", split) for split in data.SPLITS)
    torch.manual_seed(0)
    model = ARVAE((8, 8), levels=17, decoder="categorical", latent=8, hidden=100, gamma=20.0)
    fit(model, train, valid, steps=250, rate=4e-3, run=tmp_path, progress=False)
    model = checkpoint.load(tmp_path)
    rho = model.correlations(test.x)
    assert model.report(test.x) == {f"rank correlation, {name}": value for name, value in rho.items()}
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["rank correlation, slant"] > 0.6
    assert min(rho.values()) > 0.6, rho
    z = model.encode(test.x)
    for r, name in enumerate(attributes.NAMES):
        ends = [model.decode(z[:50].index_fill(1, torch.tensor(r), z[:, r].quantile(q).item())) for q in (0.05, 0.95)]
        low, high = (model.measure(x)[:, r] for x in ends)
        assert (high > low).double().mean() > 0.8, name


@pytest.mark.parametrize("settings, says", [
    (dict(attributes=("area", "colour")), "attributes must be among area, length"),
    (dict(latent=5), "one of latent=5 numbers"),
    (dict(attributes=()), "attributes must be among"), (dict(shape=(1, 8, 8)), "an image .H, W."),
])
def test_mistakes_are_said(settings, says):
    with pytest.raises(ValueError, match=says):
        ARVAE(**{"shape": (8, 8), **settings})
