"""Laws of layers.VectorQuantizer: the step of the course, codes that follow averages, codes that come back."""

import pytest
import torch
import torch.nn.functional as F
from check import fair
from torch import nn

from genmini.layers import VectorQuantizer


def test_vector_quantizer_is_the_step_of_the_course():
    layer, z = VectorQuantizer(8, 3, beta=0.5), torch.randn(4, 5, 3, requires_grad=True)
    z_q, index, loss = layer(z)
    assert torch.equal(index, torch.cdist(z.double(), layer.weight.double()).argmin(-1))
    e = layer.weight[index]
    assert torch.equal(z_q, e)

    def by_hand(dtype):
        z_, weight = (a.detach().to(dtype).requires_grad_() for a in (z, layer.weight))
        e = weight[index]
        loss = (z_.detach() - e).square().sum(-1) + 0.5 * (z_ - e.detach()).square().sum(-1)
        return loss, *torch.autograd.grad(loss.sum() + (z_ + (e - z_).detach()).pow(3).sum(), (z_, weight))

    found = loss, *torch.autograd.grad(loss.sum() + z_q.pow(3).sum(), (z, layer.weight))
    for got, exact, want in zip(found, by_hand(torch.float64), by_hand(torch.float32), strict=True):
        fair(got, exact, want, torch.float32)


@pytest.mark.parametrize("dynamic", [True, None])
@pytest.mark.parametrize("settings", [dict(), dict(decay=0.9), dict(beta=0.5)], ids=str)
def test_a_compiled_step_is_the_step(settings, dynamic):
    """In one graph, and again for other numbers of vectors; averages move as they do without it."""
    torch._dynamo.reset()
    layers = [VectorQuantizer(8, 3, **settings) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    compiled = torch.compile(layers[0], fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for N in (5, 7, 5):
        z = torch.randn(N, 3, requires_grad=True)
        found = []
        for layer in (compiled, layers[1]):
            z_q, index, loss = layer(z)
            found.append((z_q, index, loss, torch.autograd.grad(loss.sum() + z_q.pow(2).sum(), z)[0]))
        assert all(map(torch.equal, *found))
    assert all(map(torch.equal, *(layer.state_dict().values() for layer in layers)))


def test_average_codes_follow_their_vectors():
    """Averages over several batches equal those by hand; a code never chosen stays; gradients are of the codes used."""
    layer = VectorQuantizer(6, 2, decay=0.8)
    with torch.no_grad():
        layer.weight[5] = 1e3  # no vector is near it
        layer.total.copy_(layer.weight)
    start, count, total = layer.weight.clone(), torch.ones(6), layer.weight.double()
    sizes = total.abs()
    for step in range(1, 5):
        z = torch.randn(50, 2, requires_grad=True)
        used = layer.weight.clone()
        z_q, index, loss = layer(z)
        assert torch.equal(z_q, used[index])
        (dz,) = torch.autograd.grad(loss.sum(), z)
        assert torch.equal(dz, 2 * 0.25 * (z - used[index]).detach())
        one_hot = F.one_hot(index, 6).double()
        count = 0.8 * count + 0.2 * one_hot.sum(0)
        rows = z.detach().double()
        total, sizes = 0.8 * total + 0.2 * one_hot.T @ rows, 0.8 * sizes + 0.2 * one_hot.T @ rows.abs()
        # a sum of 50; in each step three roundings of the count and of the total
        within = (50 + 6 * step + 1) * 2**-24 * sizes / count[:, None]
        assert ((layer.weight - total / count[:, None]).abs() <= within).all()
    torch.testing.assert_close(layer.weight[5], start[5], rtol=9 * 2**-24, atol=0)  # 4 products each, and a quotient
    assert (layer.weight[:5] != start[:5]).any() and not list(layer.parameters())
    before = layer.weight.clone()
    layer.eval()(torch.randn(50, 2))
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cast", [lambda m, d: m.to(d), lambda m, d: m.half() if d == torch.float16 else m.bfloat16()])
def test_averages_stay_wide_when_the_codebook_becomes_narrow(dtype, cast):
    """Counts beyond float16 keep their digits, in a module of modules too; the code of 70000 vectors of 3 is 3."""
    layer = VectorQuantizer(2, 1, decay=0.9, revive=5)
    keys = list(layer.state_dict())
    with torch.no_grad():
        layer.count.copy_(torch.tensor([70000.3, 1]))
        layer.total.copy_(3 * layer.count[:, None])
        layer.weight.copy_(torch.tensor([[3.0], [1000.0]]))
    count, total = layer.count.clone(), layer.total.clone()
    cast(nn.Sequential(layer), dtype)
    assert layer.weight.dtype == dtype and torch.equal(layer.count, count) and torch.equal(layer.total, total)
    for _ in range(3):
        layer(torch.full((70000, 1), 3.0, dtype=dtype))
    assert layer.weight.dtype == dtype and layer.weight[0].item() == 3 and list(layer.state_dict()) == keys
    assert layer.double().count.dtype == layer.total.dtype == torch.float64
    assert layer.to(dtype).count.dtype == layer.total.dtype == torch.float32
    assert layer.to("meta").count.device.type == "meta" and layer.to_empty(device="cpu").count.device.type == "cpu"


def test_a_code_that_faded_for_long_stays():
    layer = VectorQuantizer(2, 1, decay=0.1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0], [100.0]]))
        layer.total.copy_(layer.weight)
    for _ in range(200):
        layer(torch.zeros(4, 1))
    torch.testing.assert_close(layer.weight, torch.tensor([[0.0], [100.0]]))


def test_average_codes_reach_the_means_of_their_clusters():
    torch.manual_seed(1)
    layer, centre = VectorQuantizer(2, 2, decay=0.5), torch.tensor([[-4.0, 0.0], [4.0, 0.0]])
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, 1.0]]))
    for _ in range(60):
        z = centre[torch.randint(2, (400,))] + 0.1 * torch.randn(400, 2)
        loss = layer(z)[2]
    # six standard errors: a code is the mean of about 200 vectors a batch, and of 3 batches by its weights
    torch.testing.assert_close(layer.weight, centre, atol=6 * 0.1 / (3 * 200) ** 0.5, rtol=0)
    # (1 + beta) times the variance that is left, a chi-square of 2 x 400 numbers, and six of its deviations
    assert loss.mean() < 1.25 * 2 * 0.1**2 * (1 + 6 / 400**0.5)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_dead_code_comes_back_on_a_vector(decay):
    """After its third batch unchosen, and not before, a code moves to a vector of that batch, no two codes to the same.

    It then counts as chosen by one vector.
    """
    layer = VectorQuantizer(5, 2, decay=decay, revive=3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0], [1e3, 0], [0, 1e3], [-1e3, 0], [0, 1]]))
        if decay:
            layer.total.copy_(layer.weight)
    far = layer.weight[1:4].clone()
    for _ in range(3):
        assert torch.equal(layer.weight[1:4], far)
        z = torch.randn(6, 2, requires_grad=True)
        layer.eval()(z)  # nothing is counted
        z_q, index, loss = layer.train()(z)
        assert set(index.tolist()) <= {0, 4}
        (z_q.sum() + loss.sum()).backward()  # through the codes that were chosen
    back = layer.weight[1:4].detach()
    on = (back[:, None] == z.detach()).all(-1)
    assert on.any(1).all() and len({row.float().argmax().item() for row in on}) == 3
    assert not layer.idle[1:4].any()
    if decay:
        assert torch.equal(layer.count[1:4], torch.ones(3)) and torch.equal(layer.total[1:4], back)
        count, total = layer.count.clone(), layer.total.clone()
        _, index, _ = layer(z)
        one_hot, z = F.one_hot(index, 5).double(), z.detach().double()
        wanted = 0.9 * count.double() + 0.1 * one_hot.sum(0)  # decay, two products and their sum are rounded
        torch.testing.assert_close(layer.count.double(), wanted, rtol=4 * 2**-24, atol=0)
        off = (layer.total - (0.9 * total.double() + 0.1 * one_hot.T @ z)).abs()
        assert (off <= (6 + 4) * 2**-24 * (0.9 * total.abs() + 0.1 * one_hot.T @ z.abs())).all()  # a sum of 6


def test_what_comes_back_is_decided_by_the_random_state():
    """More dead codes than vectors, and an empty batch; the parameter stays the optimiser's."""
    layers, z = [], torch.randn(3, 2)
    for seed in (1, 1, 2):
        layer = VectorQuantizer(50, 2, revive=1)
        weight = layer.weight
        with torch.no_grad():
            weight.copy_(torch.arange(100.0).view(50, 2) + 10)
        torch.manual_seed(seed)
        layer(z)
        assert layer.weight is weight and weight.requires_grad and (layer.weight[1:, None] == z).all(-1).any(1).all()
        layer(z[:0])
        layers.append(layer)
    assert torch.equal(layers[0].weight, layers[1].weight) and not torch.equal(layers[0].weight, layers[2].weight)
    plain = VectorQuantizer(50, 2)
    before = torch.get_rng_state()
    plain(z)
    assert torch.equal(torch.get_rng_state(), before) and set(plain.state_dict()) == {"weight"}


@pytest.mark.parametrize("given, kind, words", [
    (dict(num_embeddings=0), ValueError, "num_embeddings must be the number of codes, 1 to .*, got 0"),
    (dict(embedding_dim=0), ValueError, "embedding_dim must be the length of a code, 1 to .*, got 0"),
    (dict(decay=1.0), ValueError, r"decay must be None or in \[0, 1\), got 1.0"),
    (dict(decay="x"), TypeError, "decay must be a number, got str"),
    (dict(revive=-1), ValueError, "revive must be a number of batches, or 0 for never"),
    (dict(revive=2.5), TypeError, "revive must be an int, got float"),
    (dict(revive=True), TypeError, "revive must be an int, got bool"),
    (dict(beta="x"), TypeError, "beta must be a number, got str"),
])
def test_what_a_quantizer_is_made_of_is_checked(given, kind, words):
    with pytest.raises(kind, match=words):
        VectorQuantizer(**{"num_embeddings": 4, "embedding_dim": 2, **given})
