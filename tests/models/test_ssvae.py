"""Tests of the semi-supervised VAE: its bounds against integrals over all codes and sums over all classes; no label is
read but the few that are chosen; its stages learn apart; and planted mistakes, which the same checks must see."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from check import command
from check_models import at_step, ctrl_c, same_runs, same_weights
from planted import planted
from torch.distributions import Normal

from genmini import checkpoint, data
from genmini.models import ssvae
from genmini.models.ssvae import M2, SSVAE, few
from genmini.train import fit

LINE = torch.linspace(-15, 15, 3001, dtype=torch.float64)  # where integrals are summed
D_LINE = (LINE[1] - LINE[0]).log()
TRAIN, VALID = (data.load("digits-threshold", split) for split in ("train", "valid"))
SMALL = dict(codes=2, latent=1, hidden=8, units=8)


def doubled(model, scale=1.0, seed=0):
    """The model in float64, its weights drawn, so that no density is flat"""
    torch.manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
    return model


def m2(module=ssvae, D=2, K=3):
    return doubled(module.M2(D, K, latent=1, hidden=8))


def hot(y, n, K):
    return torch.eye(K, dtype=torch.float64)[y].expand(n, K)


@torch.no_grad()
def check_bounds(module=ssvae):
    """(3) by an integral over z: its draws have that mean, and log p(c, y) is as far above it as q(z|c, y) is from the
    posterior. (4) is log sum_y e^L less the divergence of q(y|c) from e^L / sum_y e^L."""
    model, c, z = m2(module), torch.randn(4, 2, dtype=torch.float64), LINE[:, None]
    exact = []
    for k in range(3):
        y, (mu, log_var) = hot(k, 4, 3), model.q(c, hot(k, 4, 3))
        q = torch.stack([Normal(m, (v / 2).exp()).log_prob(LINE) for m, v in zip(mu, log_var, strict=True)])  # (4, Z)
        m, log_s = model.f(z, hot(k, len(z), 3)).unbind(1)
        log_p = torch.stack([Normal(m, log_s.exp()).log_prob(one).sum(1) for one in c])
        joint = log_p + Normal(0, 1).log_prob(LINE) + math.log(1 / 3)
        log_p_cy = joint.logsumexp(1) + D_LINE
        L = (q.exp() * (joint - q)).sum(1) * D_LINE.exp()
        apart = (q.exp() * (q - (joint - log_p_cy[:, None]))).sum(1) * D_LINE.exp()
        drawn = model.L(c.repeat(20_000, 1), y.repeat(20_000, 1)).view(-1, 4)
        assert ((drawn.mean(0) - L).abs() < 5 * drawn.std(0) / 20_000**0.5).all()
        torch.testing.assert_close(log_p_cy - L, apart, rtol=1e-6, atol=1e-6)
        assert (apart > 0).all()
        exact.append(L)
    L, log_q = torch.stack(exact, 1), model.h(c).log_softmax(1)
    drawn = torch.cat([model.U(c.repeat(5000, 1)).view(-1, 4) for _ in range(4)])
    expected = L.logsumexp(1) - (log_q.exp() * (log_q - L.log_softmax(1))).sum(1)
    assert ((drawn.mean(0) - expected).abs() < 5 * drawn.std(0) / 20_000**0.5).all()
    torch.manual_seed(1)
    each = model.of_each(c)
    torch.manual_seed(1)
    entropy = torch.distributions.Categorical(logits=log_q).entropy()
    torch.testing.assert_close(model.U(c), (log_q.exp() * each).sum(1) + entropy)
    torch.manual_seed(1)
    y = torch.arange(3, dtype=torch.float64).repeat(4)
    again = model.L(c.repeat_interleave(3, 0), torch.eye(3, dtype=torch.float64)[y.long()]).view(4, 3)
    assert torch.equal(each, again)  # row n, column y: image n, class y


@torch.no_grad()
def check_whole(module=ssvae):
    """(5) of all x of three bits, c and z one number each, by integrals over both: p(x|y) sums to one, draws of the
    bounds have the mean that they should have, and that lies below log p(x) and log p(x|y)."""
    model = doubled(module.SSVAE((3,), classes=2, codes=1, latent=1, hidden=8, units=8))
    model.with_classes.fill_(True)
    x = torch.tensor(list(itertools.product(range(2), repeat=3)), dtype=torch.uint8)
    c, width = 4 * LINE[::4, None], D_LINE + math.log(16)  # (C, 1)
    log_x = torch.stack([model.m1.log_p(one.expand(len(c), 3), c) for one in x])  # (8, C)
    mu, log_var = model.m1.q(x)
    log_q = Normal(mu, (log_var / 2).exp()).log_prob(c.T)  # (8, C)
    truth, given = [], []  # log p(x|y), (8,); E log p(c|z, y) - KL, (C,)
    for k in range(2):
        m, log_s = model.m2.f(LINE[:, None], hot(k, len(LINE), 2)).unbind(1)
        joint = Normal(m.T, log_s.exp().T).log_prob(c) + Normal(0, 1).log_prob(LINE)  # (C, Z)
        truth.append((log_x + joint.logsumexp(1) + D_LINE).logsumexp(1) + width)
        m, v = model.m2.q(c, hot(k, len(c), 2))
        q_z = Normal(m, (v / 2).exp()).log_prob(LINE)
        given.append((q_z.exp() * (joint - q_z)).sum(1) * D_LINE.exp())
        assert abs(truth[-1].exp().sum() - 1) < 1e-6
    log_q_y = model.m2.h(c).log_softmax(1)
    U = (log_q_y.exp() * (torch.stack(given, 1) - math.log(2) - log_q_y)).sum(1)
    whole = torch.stack(truth).logsumexp(0) - math.log(2)
    for y, bound_c, log_p in ((None, U, whole), (0, given[0], truth[0]), (1, given[1], truth[1])):
        bound = (log_q.exp() * (log_x + bound_c - log_q)).sum(1) * width.exp()
        drawn = torch.stack([model.log_prob(x, y) for _ in range(2000)])
        assert ((drawn.mean(0) - bound).abs() < 5 * drawn.std(0) / 2000**0.5).all() and (bound < log_p).all()
    assert torch.equal(seeded(model.loss, x, 1), -seeded(model.log_prob, x, 1))
    assert torch.equal(seeded(model.figures, x, 1)["elbo"], seeded(model.log_prob, x, 1))


def seeded(f, *given):
    torch.manual_seed(3)
    return f(*given)


def check_seen(module=ssvae):
    """Hidden labels change no bit of the training, those that are seen do; the labels of valid are not read."""
    rows = few(TRAIN.y, 20, 10, 4)
    assert TRAIN.y[rows].bincount().tolist() == [2] * 10

    def trained(y, y_valid):
        torch.manual_seed(0)
        model = module.SSVAE((8, 8), labels=20, chosen=4, **SMALL)
        settings = dict(steps=2, batch=8, later={"classes": dict(steps=6, batch=16, every=3)}, progress=False)
        history = fit(model, replace(TRAIN, y=y), replace(VALID, y=y_valid), **settings)
        assert torch.equal(model.x_l, TRAIN.x[rows]) and torch.equal(model.y_l, y[rows])
        return [*model.parameters(), torch.tensor(history.valid)]

    hidden = torch.ones(len(TRAIN), dtype=torch.bool).index_fill(0, rows, False)
    random = torch.Generator().manual_seed(0)
    other, swapped = TRAIN.y.clone(), TRAIN.y.clone()
    other[hidden] = other[hidden][torch.randperm(int(hidden.sum()), generator=random)]
    swapped[rows] = swapped[rows].flip(0)
    same = lambda one, two: all(map(torch.equal, one, two))
    known = few
    try:
        module.few = lambda *given: rows  # of any y
        first = trained(TRAIN.y, VALID.y)
        assert same(first, trained(other, VALID.y.flip(0))) and not same(first, trained(swapped, VALID.y))
    finally:
        module.few = known


def check_loss(module=ssvae):
    """(6) of its parts, by the same noise"""
    model, c, c_l = m2(module), torch.randn(6, 2).double(), torch.randn(3, 2).double()
    y_l = torch.tensor([2, 0, 2])
    loss = seeded(model.loss, c, c_l, y_l, 0.25, 3.0)
    torch.manual_seed(3)
    labelled = torch.stack([model.L(c_l, torch.eye(3, dtype=torch.float64)[y_l])]).mean()
    bound, log_q = model.U(c).mean(), model.h(c_l).log_softmax(1)[torch.arange(3), y_l].mean()
    torch.testing.assert_close(loss, -bound - 0.25 * labelled - 3.0 * log_q)


CHECKS = check_bounds, check_whole, check_seen, check_loss


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_the_equations_say(check):
    check()


PLANTED = {  # what it is: the check that sees it, the line, and the line with the mistake
    "no p(y)": (check_bounds, "- math.log(self.K) - kl", "- kl"),
    "the KL added": (check_bounds, "math.log(self.K) - kl", "math.log(self.K) + kl"),
    "the entropy twice": (check_bounds, "(self.of_each(c) - log_q)", "(self.of_each(c) - 2 * log_q)"),
    "no entropy": (check_bounds, "(self.of_each(c) - log_q)", "self.of_each(c)"),
    "no 1/2 of the square": (check_bounds, ".square() / 2 - log_s", ".square() - log_s"),
    "no log s": (check_bounds, "- log_s - math.log(2 * math.pi) / 2).sum(1)", "- math.log(2 * math.pi) / 2).sum(1)"),
    "classes of another image": (check_bounds, "c.repeat_interleave(self.K, 0)", "c.repeat(self.K, 1)"),
    "no log q(c|x)": (check_whole, "log_q - L - math.log(self.classes)", "0 * log_q - L - math.log(self.classes)"),
    "log p(c, y) for log p(c|y)": (check_whole, "log_q - L - math.log(self.classes)", "log_q - L"),
    "half of log q(c|x)": (check_whole, "(eps.square() + log_var +", "(eps.square() + log_var / 2 +"),
    "all labels seen": (check_seen, "c_l, self.y_l[i],", "c, batch.y,"),
    "valid's labels read": (check_seen, "judge(self, x).mean()", "judge(self, x, y).mean()"),
    "no cross-entropy": (check_loss, "alpha * F.cross", "0 * F.cross"),
    "the labelled bound with the other sign": (check_loss, "- weight * labelled.mean()", "+ weight * labelled.mean()"),
}


@pytest.mark.parametrize("check, right, wrong", PLANTED.values(), ids=PLANTED)
def test_planted_mistakes_are_seen(check, right, wrong):
    code = planted(ssvae, right, wrong)
    with pytest.raises(AssertionError):
        check(code)


# ---- stages, labels, classes -----------------------------------------------------------------------------------------


def test_the_stages_learn_apart():
    """M1 is learnt first, and rests, without dropout, while M2 is learnt; the loss is M1's, then that of both."""
    model = SSVAE((8, 8), labels=10, dropout=0.3, **SMALL)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.begin("codes", TRAIN)
    fit(model, TRAIN, VALID, steps=3, batch=8, progress=False)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if name.startswith("m1.")}
    assert torch.equal(seeded(model.loss, VALID.x[:5]), seeded(model.m1.loss, VALID.x[:5]))
    between = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.begin("classes", TRAIN)
    model.train()
    assert not model.m1.training and model.m2.training
    fit(model, TRAIN, VALID, steps=3, batch=8, progress=False)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, between[name])}
    assert moved == {name for name in before if name.startswith("m2.")}
    assert model.n_of_all == torch.tensor(10 / len(TRAIN))


@pytest.mark.parametrize("at", [2, 7])
def test_interrupted_in_either_stage_and_resumed_equals_uninterrupted(tmp_path, at):
    def staged(run, event=None, resume=False):
        torch.manual_seed(7)
        model = SSVAE((8, 8), labels=20, dropout=0.2, **SMALL)
        later = {"classes": dict(steps=6, every=3, batch=16, ema=0.5)}
        with at_step(SSVAE, at, event):
            fit(model, TRAIN, VALID, steps=4, every=2, batch=16, later=later, run=run, resume=resume, progress=False)
        return model

    whole = staged(tmp_path / "whole", lambda: None)
    with ctrl_c() as press:
        staged(tmp_path / "parts", press)
    same_weights(whole, staged(tmp_path / "parts", lambda: None, resume=True))
    same_runs(tmp_path / "parts", tmp_path / "whole")


def test_few_labels_are_as_many_of_each_class_by_a_seed():
    one, same, other = (few(TRAIN.y, 50, 10, seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other) and len(one.unique()) == 50
    assert TRAIN.y[one].bincount().tolist() == [5] * 10 == TRAIN.y[other].bincount().tolist()
    for n in (55, 2000):
        with pytest.raises(ValueError, match=f"labels must be as many of each of 10 classes, .*, got {n}"):
            few(TRAIN.y, n, 10, 0)


def test_clusters_with_one_label_each_are_classes():
    """Four clusters of codes, a label for one code of each, which lies at the edge of its cluster: M2 tells nearly all
    apart. What the labels alone teach, by the same classifier, is worse."""
    torch.manual_seed(0)
    centres, n = 3 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]), 400
    y = torch.arange(n) % 4
    c = centres[y] + 0.8 * torch.randn(n, 2)
    c_l, y_l = centres + 1.7 * torch.tensor([[-1, 1], [1, 1], [-1, -1], [1, -1]]), torch.arange(4)
    right = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        model = M2(2, 4, latent=1, hidden=16)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(300):
            loss = torch.nn.functional.cross_entropy(model.h(c_l), y_l)
            loss = model.loss(c[torch.randint(n, (64,))], c_l, y_l, 0.01) if weight else loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        right[weight] = (model.h(c).argmax(1) == y).float().mean()
    assert right[1.0] > 0.97 > right[0.0] + 0.05


def test_a_class_and_z_make_an_image():
    model = doubled(SSVAE((8, 8), levels=5, decoder="categorical", labels=10, **SMALL))
    model.with_classes.fill_(True)
    x, z = torch.randint(5, (6, 8, 8)), torch.randn(6, 1, dtype=torch.float64)
    assert not torch.equal(model.decode(z, 0), model.decode(z, 1)) and model.decode(z, 3).shape == (6, 8, 8)
    likeliest = model.classify(x)[1].argmax(1)
    assert torch.equal(model.encode(x), model.encode(x, likeliest))
    assert not torch.equal(model.encode(x), model.encode(x, (likeliest + 1) % 10))
    assert torch.equal(model.reconstruct(x), model.decode(model.encode(x), likeliest))
    drawn = lambda y, mean=True: seeded(lambda y: model.sample(3000, y, mean=mean).double(), y)
    one, other, off = drawn(2), drawn(7), drawn(2, mean=False) - drawn(2)  # of the same z
    assert torch.equal(one, drawn(2)) and (off.mean(0).abs() < 6 * off.std(0) / 3000**0.5).all()  # standard errors
    away = other - one
    # along the way to the other class, too, where its images would lie at 1
    along, error = (off * away).sum() / away.square().sum(), (off * away).square().sum().sqrt() / away.square().sum()
    assert abs(along) < 5 * error < 0.5
    right = model.figures(x, likeliest)["accuracy"]
    assert (right == 1).all() and (model.figures(x, (likeliest + 1) % 10)["accuracy"] == 0).all()


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_line_trains_by_few_labels(capsys):
    small = [f"{key}={value}" for key, value in dict(SMALL, body="mlp", labels=30, chosen=2).items()]
    words = ["train", "ssvae", "--data", "digits", "--steps", "2", "--out", "r"]
    assert command(capsys, *words, *(word for each in small for word in ("--set", each)))[0] == 0
    model = checkpoint.load("r")
    assert model.with_classes and torch.equal(model.x_l, data.load("digits").x[few(data.load("digits").y, 30, 10, 2)])
    assert "accuracy" in command(capsys, "eval", "r")[1]
    status, _, err = command(capsys, *words, "--overwrite", "--set", "labels=33")
    assert status == 2 and "as many of each of 10 classes" in err
