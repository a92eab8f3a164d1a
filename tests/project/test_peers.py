"""genmini.swap in models of libraries that others wrote, which `make test-peers` installs: what is swapped computes,
learns and is put back as before; what is left is named."""

import collections
import contextlib
import copy

import pytest
import strangers_pixels
import torch
from peers import libraries

import genmini
from genmini.swap import gate

pytestmark = pytest.mark.peers
STEPS = 20
EXPECTED = {  # what becomes of their modules: {(class, room, state): how many}
    "vector-quantize-pytorch, moving averages": {("VectorQuantize", "nearest_code", "swapped"): 1},
    "vector-quantize-pytorch, learnt codes": {("VectorQuantize", "nearest_code", "swapped"): 1},
    "vector-quantize-pytorch, cosine": {("VectorQuantize", "nearest_code", "left"): 1},
    "zuko MAF": {("MaskedLinear", "masked_linear", "swapped"): 9},
    "zuko NSF": {("MaskedLinear", "masked_linear", "swapped"): 6},
    "nflows MAF": {("MaskedLinear", "masked_linear", "swapped"): 8},
    "nflows coupling": {},
    "normflows coupling": {},
    "normflows masked coupling": {},
    "pythae MAF": {("MaskedLinear", "masked_linear", "swapped"): 6},
    "pythae MADE": {("MaskedLinear", "masked_linear", "swapped"): 3},
    "pythae VQ-VAE": {("Quantizer", "nearest_code", "swapped"): 1},
    "pythae VQ-VAE, moving averages": {("QuantizerEMA", "nearest_code", "swapped"): 1},
    "pythae PixelCNN": {("MaskedConv2d", "masked_conv2d", "swapped"): 4},
}


@pytest.fixture(params=libraries.BUILD)
def peer(request):
    """Its name, a model, inputs and loss(model, x)"""
    torch.manual_seed(0)
    return request.param, *libraries.BUILD[request.param]("small")


def test_what_is_swapped_agrees_and_what_is_left_is_named(peer):
    name, model, x, loss = peer
    report = genmini.swap(model, measure=False)
    assert collections.Counter((row.module, row.room, row.state) for row in report.rows) == EXPECTED[name], report
    assert all(row.why for row in report.left + report.advised)
    if report.swapped:
        checked = genmini.verify(model, x, loss)
        assert checked.same and checked.judge == "float64", checked


def test_it_is_put_back_to_the_bit(peer):
    name, model, x, loss = peer
    before = copy.deepcopy(model)
    genmini.swap(model, measure=False)
    genmini.unswap(model)
    for one, other in zip(model.modules(), before.modules(), strict=True):
        assert type(one) is type(other) and vars(one).keys() == vars(other).keys()
    assert model.state_dict().keys() == before.state_dict().keys()
    with torch.random.fork_rng():  # a loss may draw
        runs = [gate.answers(one, [x], call=loss) for one in (model, before)]
    assert not gate.difference(*runs, most=0)


def test_twenty_steps_have_the_losses_of_before(peer):
    """In float64 within the gate's 1e-9 a step; in float32 at most twice as far from them as the owner's own, and a few
    roundings a step."""
    name, model, x, loss = peer
    before = copy.deepcopy(model)
    if not genmini.swap(model, measure=False).swapped:
        pytest.skip("nothing is swapped")
    exact, wide = (trained(one, x, loss, torch.float64) for one in (before, model))
    was, now = (trained(one, x, loss, torch.float32) for one in (before, model))
    apart = lambda a: ((a - exact) / exact).abs().max().item()
    assert exact[-1] < exact[0]
    assert apart(wide) <= STEPS * 1e-9
    assert apart(now) <= 2 * apart(was) + STEPS * 8 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("name", ["zuko MAF", "zuko NSF"])
def test_flows_of_zuko_draw_the_same_without_a_pass_a_number(name):
    torch.manual_seed(0)
    theirs, x, loss = libraries.BUILD[name]("small")
    rows = genmini.swap(theirs, measure=False, sampling=True).rows
    assert [row.state for row in rows if row.room == "inverse"] == ["swapped"] * len(theirs.transform.transforms)
    draws = lambda flow, z: gate.mapped(torch.no_grad()(flow().transform.inv), z)
    checked = genmini.verify(theirs, x, draws)
    assert checked.same and checked.judge == "float64", checked


def test_pixelcnn_of_pythae_draws_the_same_without_a_pass_a_pixel():
    torch.manual_seed(0)
    theirs, x, loss = libraries.BUILD["pythae PixelCNN"]("small")
    theirs(dict(data=x))  # its batch norms see data
    network, values = theirs.double().eval().net, torch.arange(16.0, dtype=torch.float64)
    u = torch.rand(x.shape, dtype=torch.float64)
    images = genmini.swap.draw_pixels(network, u, values)
    assert torch.equal(images, strangers_pixels.loop(network, u, values)) and len(images.unique()) > 4


def trained(model, x, loss, dtype):
    """The loss before each of so many steps of Adam of a copy, (STEPS,) float64"""
    model, losses = gate.to(gate.copy_of(model), dtype).train(), []
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    torch.manual_seed(0)
    with gate.in_float64() if dtype == torch.float64 else contextlib.nullcontext():
        for _ in range(STEPS):
            optimiser.zero_grad()
            value = loss(model, x.to(dtype))
            value.backward()
            optimiser.step()
            losses.append(value.double().detach())
    return torch.stack(losses)


OPTIONS = {  # of vector-quantize-pytorch, and whether it is swapped
    "images": (dict(accept_image_fmap=True), True),
    "channels first": (dict(channel_last=False), True),
    "projections": (dict(codebook_dim=3), True),
    "straight-through": (dict(rotation_trick=False), True),
    "frozen": (dict(freeze_codebook=True), True),
    "updated by hand": (dict(manual_ema_update=True), True),
    "no commitment": (dict(commitment_weight=0.0), True),
    "learnt and frozen": (dict(learnable_codebook=True, ema_update=False, freeze_codebook=True), True),
    "heads": (dict(heads=2), False),
    "dead codes": (dict(threshold_ema_dead_code=2), False),
    "k-means": (dict(kmeans_init=True), False),
    "drawn": (dict(stochastic_sample_codes=True), False),
    "orthogonal": (dict(orthogonal_reg_weight=1.0, ema_update=False, learnable_codebook=True), False),
    "diverse": (dict(codebook_diversity_loss_weight=1.0), False),
    "affine": (dict(affine_param=True), False),
    "reparametrised": (dict(directional_reparam=True, threshold_ema_dead_code=2), False),
}


@pytest.mark.parametrize("options, fine", OPTIONS.values(), ids=OPTIONS)
def test_options_of_vector_quantize_are_swapped_or_named(options, fine):
    from vector_quantize_pytorch import VectorQuantize

    (row,) = genmini.swap(VectorQuantize(6, 10, **options), measure=False).rows
    assert (row.state == "swapped") == fine and (fine or row.why), row


def test_each_library_is_here():
    assert EXPECTED.keys() == libraries.BUILD.keys()
