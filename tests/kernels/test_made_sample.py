"""Proofs and laws of the room that draws from MADE (kernels/made_sample.py)."""

import itertools
import math

import pytest
import torch
from check import drawn_from, fair, laid_out, layouts, opaque, runs, seeds, structs
from genmini.kernels import _library
from genmini.kernels import made_sample as room
from hypothesis import given
from hypothesis import strategies as st

from genmini import kernels, ops

RUNS = runs("made_sample")
KERNELS = [run for run in RUNS if run.backend != "reference"]
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
each_kernel = pytest.mark.parametrize("run", KERNELS, ids=str)
NETS = {  # N, D, hidden, levels, direct: around the edges of vectors, warps, tiles of units and of samples
    "one layer": (9, 5, (20,), 2, False),
    "deep, direct": (33, 7, (17, 40, 9), 2, True),
    "no hidden layer": (3, 6, (), 2, True),
    "more units than threads": (2, 4, (300, 280), 2, False),
    "three levels": (19, 4, (9, 31), 3, True),
    "levels": (5, 3, (6,), 11, False),
}
each_net = pytest.mark.parametrize("sizes", NETS.values(), ids=NETS)


def net(D, hidden, levels=2, direct=False, seed=0, scale=2.0, dtype=torch.float64):
    """Weights, biases, degrees and A: logits are a few times `scale`; degrees are drawn, some layers may lack some."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)
    inputs, outputs = D * (levels - 1), D * (1 if levels == 2 else levels)
    sizes = [inputs, *hidden, outputs]
    weights = [(draw(j, k) * scale / max(k, 1) ** 0.5).to(dtype) for k, j in zip(sizes, sizes[1:], strict=False)]
    biases = [draw(j).to(dtype) for j in sizes[1:]]
    degrees = [torch.randint(0, D + 1, (H,), generator=g).sort().values for H in hidden]
    return weights, biases, degrees, draw(outputs, inputs).to(dtype) if direct else None


def noise(N, D, seed=1):
    return torch.rand(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixels(N, D, levels, seed=2):
    return torch.randint(levels, (N, D), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def definition(x, weights, biases, degrees, levels, A):
    """The logits of all pixels, (N, D, 1 or levels), unit by unit from what its degree lets it see."""
    N, D = x.shape
    rows = 1 if levels == 2 else levels
    bits = torch.stack([x >= l for l in range(1, levels)], 2).flatten(1).to(weights[-1].dtype)
    z, below = bits, [d for d in range(1, D + 1) for _ in range(levels - 1)]
    for W, b, m in zip(weights, biases, degrees, strict=False):
        seen = [[k for k, m_k in enumerate(below) if m_k <= m_j] for m_j in m.tolist()]
        columns = [(z[:, k] @ W[j, k] + (0 if b is None else b[j])).relu() for j, k in enumerate(seen)]
        z, below = torch.stack(columns, 1) if columns else z.new_zeros(N, 0), m.tolist()
    l = []
    for row in range(D * rows):
        d = row // rows + 1
        k = [k for k, m_k in enumerate(below) if m_k < d]
        l.append(z[:, k] @ weights[-1][row, k] + (0 if biases[-1] is None else biases[-1][row]))
        if A is not None:
            l[-1] = l[-1] + bits[:, : (d - 1) * (levels - 1)] @ A[row, : (d - 1) * (levels - 1)]
    return torch.stack(l, 1).reshape(N, D, rows)


def to(run, u, network, x=None):
    move = lambda a: a if a is None else a.to(run.device)
    weights, biases, degrees, A = network
    return move(u), [*map(move, weights)], [*map(move, biases)], [*map(move, degrees)], move(A), move(x)


def draw(run, u, network, levels, x=None, known=0):
    u, weights, biases, degrees, A, x = to(run, u, network, x)
    with run.use():
        x, l = ops.made_sample(u, weights, biases, degrees, levels, A, x, known, logits=True)
    return x.cpu(), l.cpu()


# ---- the same noise gives the naive sample ---------------------------------------------------------------------------


@everywhere
@each_net
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_float64_is_the_definition(run, sizes, share):
    """Logits of the sample as the equations give them, one unit at a time, and pixels as they and the noise say."""
    N, D, hidden, levels, direct = sizes
    u, x, network, known = noise(N, D), pixels(N, D, levels), net(D, hidden, levels, direct), math.ceil(share * D)
    got, l = draw(run, u, network, levels, x, known)
    wanted = definition(got, *network[:3], levels, network[3])
    assert got.dtype == torch.uint8 and torch.equal(got[:, :known], x[:, :known])
    torch.testing.assert_close(l.reshape(wanted.shape), wanted, rtol=0, atol=1e-12)
    below = torch.sigmoid(-wanted) if levels == 2 else wanted.softmax(-1).cumsum(-1)[..., :-1]
    assert torch.equal(got[:, known:].long(), (u[..., None] >= below).sum(-1)[:, known:])
    assert torch.equal(got, draw(RUNS[0], u, network, levels, x, known)[0])


@each_kernel
@each_net
def test_float32_logits_are_those_of_a_pass(run, sizes):
    N, D, hidden, levels, direct = sizes
    weights, biases, degrees, A = net(D, hidden, levels, direct, dtype=torch.float32)
    got, l = draw(run, noise(N, D).float(), (weights, biases, degrees, A), levels)
    wide = [w.double() for w in weights], [b.double() for b in biases], degrees, A if A is None else A.double()
    assert l.dtype == torch.float32
    exact, theirs = (definition(got, *of[:3], levels, of[3]).reshape(l.shape)
                     for of in (wide, (weights, biases, degrees, A)))
    fair(l, exact, theirs, torch.float32)
    assert torch.equal(
        draw(run, noise(N, D).float(), (weights, biases, degrees, A), levels, got, D)[1], l
    ), "known or drawn: the same logits"


@each_kernel
@given(seed=seeds, layout=layouts, N=st.sampled_from([0, 1, 4, 8, 16, 17, 65]), D=st.sampled_from([0, 1, 2, 5]),
       levels=st.sampled_from([2, 2, 3]))
def test_cruel_inputs(run, seed, layout, N, D, levels):
    """Any layout, no biases, layers of no units, no samples, no pixels; and nothing given is overwritten."""
    generator = torch.Generator().manual_seed(seed % 1000)
    hidden = tuple(torch.randint(0, 12, (seed % 4,), generator=generator).tolist())
    weights, biases, degrees, A = net(D, hidden, levels, bool(seed % 2), seed % 1000)
    weights, biases = ([laid_out(w, layout) for w in weights],
                       [None if i == seed % 3 else b for i, b in enumerate(biases)])
    u, x = laid_out(noise(N, D), layout), pixels(N, D, levels)
    given_x = x.clone()
    got, l = draw(run, u, (weights, biases, degrees, A), levels, x, D // 2)
    assert torch.equal(x, given_x)
    wanted, logits = draw(RUNS[0], u, (weights, biases, degrees, A), levels, x, D // 2)
    assert torch.equal(got, wanted) and got.shape == (N, D)
    torch.testing.assert_close(l, logits, rtol=0, atol=1e-12)


@each_kernel
def test_samples_follow_the_probabilities(run):
    """A chi-square over the whole space."""
    D, levels, N = 3, 3, 600 if run.backend == "emulated" else 20000
    network = net(D, (8,), levels, True, seed=4, dtype=torch.float32)
    x, _ = draw(run, noise(N, D).float(), network, levels)
    space = torch.cartesian_prod(*[torch.arange(levels)] * D).to(torch.uint8)
    log_p = definition(space, *network[:3], levels, network[3]).log_softmax(-1).gather(2, space.long()[..., None])
    wanted = N * log_p.sum((1, 2)).double().exp()
    seen = torch.bincount((x.long() * levels ** torch.arange(D - 1, -1, -1)).sum(1), minlength=levels**D)
    drawn_from(seen, wanted)


# ---- laws ------------------------------------------------------------------------------------------------------------


@everywhere
def test_what_the_masks_hide_is_never_seen(run):
    """Neither the values of dead weights, NaN included, nor what x holds after the known pixels."""
    N, D = 5, 4
    weights, biases, degrees, A = net(D, (9, 7), 2, True)
    u, x = noise(N, D), pixels(N, D, 2)
    wanted = draw(run, u, (weights, biases, degrees, A), 2, x, 2)
    m = [torch.arange(1, D + 1), *degrees]
    dead = [w.masked_fill(m_j[:, None] < m_k, math.nan) for w, m_j, m_k in zip(weights, degrees, m, strict=False)]
    dead += [w.masked_fill(m[0][:, None] <= m_k, math.nan) for w, m_k in ((weights[-1], m[-1]), (A, m[0]))]
    x[:, 2:] = 255
    got = draw(run, u, (dead[:-1], biases, degrees, dead[-1]), 2, x, 2)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@everywhere
def test_far_out(run):
    """Certain pixels are certain, for the least noise above 0 and the greatest; a logit of NaN gives level 0."""
    u = torch.tensor([2.0**-24, 1 - 2.0**-24])[:, None].expand(-1, 4)
    of_biases = lambda levels, *l: draw(run, u, ([torch.zeros(len(l), 4 * (levels - 1))], [torch.tensor(l)], [], None),
                                        levels)
    inf, nan = math.inf, math.nan
    x, l = of_biases(2, 100.0, -100, inf, nan)
    assert x.tolist() == [[1, 0, 1, 0]] * 2 and l[0, 2] == inf
    x, _ = of_biases(3, 0.0, -200, -200, -200, 0, -200, -1e30, -inf, 0, 1e30, 1, nan)
    assert x.tolist() == [[0, 1, 2, 0]] * 2
    x, _ = of_biases(3, 3e38, -3e38, -3e38, -inf, -3e38, 3e38, -inf, -inf, -inf, nan, 0, 0)
    assert x.tolist() == [[0, 2, 0, 0]] * 2


@everywhere
def test_the_noise_decides_upwards(run):
    even = ([torch.zeros(3, 3)], [None], [], None)
    assert draw(run, torch.tensor([[0.4, 0.5, 0.6]]), even, 2)[0].tolist() == [[0, 1, 1]]
    four = ([torch.zeros(4, 3)], [None], [], None)
    assert [draw(run, torch.tensor([[u]]), four, 4)[0].item() for u in (0.2, 0.25, 0.6, 0.75, 0.9)] == [0, 1, 2, 3, 3]


@each_kernel
def test_a_row_does_not_depend_on_its_neighbours(run):
    network, u = net(6, (40, 30), 2, True, dtype=torch.float32), noise(70, 6).float()
    together = draw(run, u, network, 2)
    for n in (0, 7, 33, 64, 69):
        alone = draw(run, u[n : n + 1], network, 2)
        assert torch.equal(alone[0][0], together[0][n]) and torch.equal(alone[1][0], together[1][n])


def test_large_tiles_and_layers_that_leave_shared_memory():
    """Many samples take tiles of 2, 4 and 8; wide layers keep their activations in the workspace. The bits stay."""
    for N, network in ((600, net(2, (5,), 2)), (1, net(2, (13000,), 2))):
        u = noise(N, 2)
        with kernels.use("emulated", "tiles"):
            x, l = ops.made_sample(u, *network[:3], logits=True)
            alone = [ops.made_sample(row[None], *network[:3], logits=True)[1] for row in u[[0, -1]]]
        with kernels.use("reference"):
            wanted, logits = ops.made_sample(u, *network[:3], logits=True)
        assert torch.equal(x, wanted) and torch.equal(l[[0, -1]], torch.cat(alone))
        torch.testing.assert_close(l, logits, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["avx2", "portable"])
def test_every_instruction_set(kind, monkeypatch):
    """The other vector widths of the native kernel (a processor without AVX2 runs the narrow one twice)."""
    monkeypatch.setenv("GENMINI_CPU", kind)
    run = next(run for run in RUNS if run.backend == "cpu")
    for sizes in NETS.values():
        test_float64_is_the_definition(run, sizes, 0)
        test_float32_logits_are_those_of_a_pass(run, sizes)
    test_far_out(run)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_workspace_is_enough_for_every_instruction_set(dtype, monkeypatch):
    """The environment may change between the size and the call, so the size does not depend on it."""
    call = "made_sample", "cpu", "made_sample_cpu_workspace"
    for N, threads in itertools.product((1, 7, 16, 17, 100, 1000), (1, 3)):
        found, sizes = set(), room.Sizes(known=0, I=1, L=2, N=N, D=4, units=10)
        for name in ("portable", "avx2", "avx512"):
            monkeypatch.setenv("GENMINI_CPU", name)
            found.add(_library.size(*call, dtype, _library.table(room.Sizes, [sizes]), threads=threads))
        lanes = 64 // dtype.itemsize
        samples = lanes * min(max(math.ceil(N / lanes / threads), 1), 4)
        assert found == {threads * 11 * samples * dtype.itemsize + 64}


def test_the_tables_are_the_structs_of_the_header():
    """Field by field, in their order, 8 bytes each."""
    of = structs("made_sample.h")
    assert of["Layer"] == {"W": "T*", "b": "T*", "degrees": "int64_t*", "K": "int64_t"}
    assert list(of["Layer"]) == list(room.LayerRow._fields)
    assert set(of["Sizes"].values()) == {"int64_t"} and list(of["Sizes"]) == list(room.Sizes._fields)


def test_opaque():
    weights, biases, degrees, A = net(3, (5,), 3, True)
    for backend in ("reference", "cpu", "emulated"):
        opaque(torch.ops.genmini.made_sample.default,
               (noise(2, 3), pixels(2, 3, 3).short(), 1, 3, weights, biases, degrees, A, backend))


def test_it_compiles_and_maps_to_meta():
    weights, biases, degrees, A = net(3, (5,), 3, True)
    u = noise(4, 3)
    compiled = torch.compile(lambda u: ops.made_sample(u, weights, biases, degrees, 3, A), fullgraph=True,
                             backend="aot_eager")
    assert torch.equal(compiled(u), ops.made_sample(u, weights, biases, degrees, 3, A))
    meta = lambda arrays: [a.to("meta") for a in arrays]
    assert ops.made_sample(u.to("meta"), meta(weights), meta(biases), meta(degrees), 3, A.to("meta"),
                           logits=True)[1].shape == (4, 3, 3)
