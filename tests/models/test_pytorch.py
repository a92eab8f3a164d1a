"""Models with the rest of PyTorch: export, pickle, checkpointing, torch.func, workers of a DataLoader, inductor."""

import copy
import io
import pickle

import pytest
import torch
from check import fair
from check_models import condition, small
from torch import nn
from torch.export import Dim, export
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from genmini import models, ops
from genmini.models._model import Model


class Loss(nn.Module):
    """The losses of a batch, as a module's forward"""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return self.model.loss(x, **y)


def made(name):
    """A small model of the family, five examples, and what else `loss` takes"""
    model, x = small(name)
    return model.eval(), x, condition(model, len(x))


def losses(model, x, y):
    torch.manual_seed(1)  # of what a loss draws
    return model.loss(x, **y) if isinstance(model, Model) else model(x, y)


def gradients(model, x, y):
    return torch.autograd.grad(losses(model, x, y).sum(), list(model.parameters()))


def flat(tensors):
    return torch.cat([each.flatten() for each in tensors])


def twice(x, y):
    return torch.cat([x, x.flip(0)]), {name: torch.cat([value, value.flip(0)]) for name, value in y.items()}


@pytest.mark.parametrize("name", ["nade", "made", "rnade", "pixelcnn", "maf", "autoencoder", "vae", "cvae", "gan",
                                  "cgan", "classifier"])
def test_a_loss_is_exported(name):
    """Not those whose loss reads values to go on: ar, ssvae and vqvae with their stages, and models of texts."""
    model, x, y = made(name)
    exported = export(Loss(model), (x, y), strict=False).module()
    assert torch.equal(losses(exported, x, y), losses(model, x, y))


@pytest.mark.parametrize("name", ["maf", "vae"])
def test_a_loss_is_exported_for_batches_of_any_size(name):
    model, x, y = made(name)
    exported = export(Loss(model), (x, y), dynamic_shapes={"x": {0: Dim("N")}, "y": {}}, strict=True).module()
    for more in ((x, y), twice(x, y)):
        assert torch.equal(losses(exported, *more), losses(model, *more))


def test_an_exported_loss_has_gradients():
    model, x, y = made("maf")
    exported = export(Loss(model), (x, y), strict=False).module()
    losses(exported, x, y).sum().backward()
    found = {name: p.grad for name, p in exported.named_parameters()}
    losses(model, x, y).sum().backward()
    for name, p in model.named_parameters():
        assert torch.equal(found[f"model.{name}"], p.grad)


@pytest.mark.parametrize("name", models.MODELS)
def test_a_model_is_copied_pickled_and_saved_whole(name):
    model, x, y = made(name)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    wanted = losses(model, x, y)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(losses(other, x, y), wanted)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
    assert torch.equal(losses(model, x, y), wanted)  # the copies have parameters of their own


@pytest.mark.parametrize("name", ["maf", "vae", "diffusion"])
def test_gradients_are_those_of_a_checkpoint(name):
    model, x, y = made(name)
    found = []
    for loss in (lambda: losses(model, x, y), lambda: checkpoint(losses, model, x, y, use_reentrant=False)):
        model.zero_grad()
        loss().sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert found[0] and all(map(torch.equal, *found))


@pytest.mark.parametrize("name", ["made", "nade"])
def test_gradients_of_each_example_by_vmap(name):
    model, x, y = made(name)
    weights = dict(model.named_parameters())

    def loss(weights, x):
        named = {f"model.{name}": weight for name, weight in weights.items()}
        return torch.func.functional_call(Loss(model), named, (x[None], {})).sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0), randomness="same")(weights, x)
    wide = copy.deepcopy(model).double()
    for n in range(len(x)):
        exact, wanted = (gradients(of, x[n : n + 1], y) for of in (wide, model))
        found = [gradient[n] for gradient in each.values()]
        fair(*map(flat, (found, exact, wanted)), torch.float32)


class Codes(Dataset):
    """The nearest codes of some vectors, computed where an item is asked for"""

    def __init__(self):
        self.z, self.e = torch.randn(4, 300, 16), torch.randn(64, 16)

    def __len__(self):
        return len(self.z)

    def __getitem__(self, i):
        degrees = torch.arange(16), torch.arange(64)
        return ops.nearest_code(self.z[i], self.e), ops.masked_linear(self.z[i], self.e, None, *degrees)


def test_operators_run_in_a_worker_of_a_dataloader():
    """A fork of this process, whose threads have run them already."""
    data = Codes()
    wanted = [data[i] for i in range(len(data))]
    loaded = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=100)
    for found, want in zip(loaded, wanted, strict=True):
        assert all(map(torch.equal, found, want))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["made", "autoencoder"])
def test_inductor_compiles_a_loss_for_batches_of_any_size(name):
    model, x, y = made(name)
    compiled, wide = torch.compile(Loss(model), dynamic=True), copy.deepcopy(model).double()
    for more in ((x, y), twice(x, y)):
        found = torch.autograd.grad(compiled(*more).sum(), list(model.parameters()))
        fair(*map(flat, (found, gradients(wide, *more), gradients(model, *more))), torch.float32)


@pytest.mark.thorough
def test_inductor_compiles_an_exported_loss_ahead_of_time(tmp_path):
    model, x, y = made("made")
    wide = copy.deepcopy(model).double()
    with torch.no_grad():
        exported = export(Loss(model), (x, y), dynamic_shapes={"x": {0: Dim("N", min=2)}, "y": {}}, strict=True)
        path = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "loss.pt2"))
        loaded = torch._inductor.aoti_load_package(path)
        for more in ((x, y), twice(x, y)):
            fair(loaded(*more), losses(wide, *more), losses(model, *more), torch.float32)
