"""genmini.swap where it is given what it was not made for: it says so, or does as the owner does."""

import pytest
import strangers
import torch
from torch import nn

import genmini

K, J, D = 12, 10, 6
x = torch.linspace(-1, 1, 5 * K).view(5, K)


@pytest.mark.parametrize("call", [genmini.swap, genmini.unswap, lambda model: genmini.verify(model, x),
                                  lambda model: genmini.swapped(model).__enter__()])
@pytest.mark.parametrize("model", [None, nn.Linear, [nn.ReLU()], torch.relu],
                         ids=["nothing", "class", "list", "function"])
def test_what_is_no_module_is_named(call, model):
    with pytest.raises(TypeError, match="takes an nn.Module, an instance, got"):
        call(model)


def test_a_model_without_tensors_is_verified():
    report = genmini.verify(nn.ReLU(), x)
    assert report.same and str(report).startswith("nothing is swapped\n")


def test_inputs_may_be_no_tensors():
    class Chosen(strangers.Masked):
        def forward(self, x, only=None):
            return super().forward(x)[:only]

    model = Chosen(K, J)
    assert genmini.swap(model, inputs=(x, 2), measure=False).swapped
    assert genmini.verify(model, (x, 2)).same


def test_inference_mode_hinders_no_swap():
    with torch.inference_mode():
        model, stays = strangers.Masked(K, J), strangers.Masked(K, J)
        stays.load_state_dict(model.state_dict())
        assert genmini.swap(model, inputs=x, measure=False).swapped
        assert genmini.verify(model, x).same
        torch.testing.assert_close(model(x), stays(x))


@pytest.mark.parametrize("make, x", [(lambda: strangers.Masked(K, J), x),
                                     (lambda: strangers.MaskedConv("A", 4, 6, 3, padding=1), torch.ones(2, 4, 5, 5))])
def test_a_mask_that_begins_to_learn_gets_its_gradient(make, x):
    model = make()
    assert genmini.swap(model, measure=False).swapped
    model.mask.requires_grad_()
    model(x).sum().backward()
    assert model.mask.grad is not None


def test_codes_of_vectors_that_want_no_gradient_want_none():
    model, z = strangers.VectorQuantizer(7, D), torch.randn(2, D, 3, 3)
    wanted = [out.requires_grad for out in model(z)]
    assert genmini.swap(model, measure=False).swapped
    assert [out.requires_grad for out in model(z)] == wanted
    model(z)[1].numpy()


@pytest.mark.parametrize("name, value", [("factor", 2.0), ("factor", torch.full((J,), 2.0)), ("shift", torch.ones(J)),
                                         ("power", torch.full((J,), 2.0))])
def test_what_was_none_or_a_number_may_become_a_tensor(name, value):
    class Late(strangers.Masked):
        def __init__(self):
            super().__init__(K, J)
            self.factor, self.power = None, 1.0
            self.register_buffer("shift", None)

        def forward(self, x):
            y = super().forward(x) if self.factor is None else super().forward(x) * self.factor
            return (y if self.shift is None else y + self.shift) ** self.power

    model = Late()
    assert genmini.swap(model, measure=False).swapped
    setattr(model, name, value)
    torch.testing.assert_close(model(x), Late.forward(model, x))


def test_a_full_backward_hook_leaves_a_module_swapped():
    model = strangers.Masked(K, J)
    genmini.swap(model, measure=False)
    model.register_full_backward_hook(lambda *_: None)
    assert model.forward.unchanged()


@pytest.mark.parametrize("error, named, options", [
    (ValueError, "call says how the model takes inputs, and there are none", dict(call=3)),
    (TypeError, "sampling must be True or False, got 'yes'", dict(sampling="yes")),
    (TypeError, "measure must be True or False, got 0", dict(measure=0)),
])
def test_an_option_that_would_be_passed_over_is_named(error, named, options):
    with pytest.raises(error, match=named):
        genmini.swap(nn.Linear(2, 2), **options)
