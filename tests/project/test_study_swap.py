"""Tests of `study codes --swap`: the region alone holds codes of the other image, what is decoded changes where the
decoder reaches from there, and planted mistakes, which the same checks must see."""


import numpy as np
import pytest
import torch
from check import command
from planted import planted
from test_study_codes import vqvae

from genmini import checkpoint, plots
from genmini.data import Data
from genmini.models._model import Model
from genmini.models.made import MADE
from genmini.models.vqvae import VQVAE
from genmini.studies import _swap

N, NAMES = 12, ("left half", "upper half", "upper left quarter")


class Squares(Model):
    """Places of 4 x 2 pixels: a code is the level of the first of them; each pixel is the level of its code, and 1/4 of
    that of the place to the right."""

    grid, K = (2, 6), 17

    def __init__(self):
        super().__init__((8, 12), 17)

    def codes(self, x, y=None):
        return x[:, ::4, ::2].long()

    def decode_codes(self, k, y=None):
        wide = (3 * k + torch.cat([k[:, :, 1:], k[:, :, -1:]], 2)).double() / 4
        return wide.repeat_interleave(4, 1).repeat_interleave(2, 2)


def data_of(split, N=N, shape=(8, 12), classes=3):
    noise = np.random.RandomState(len(split))
    x, y = noise.randint(17, size=(N, *shape)).astype(np.uint8), noise.randint(classes, size=N)
    return Data("digits", split, torch.from_numpy(x), torch.from_numpy(y), 17, classes=classes)


def run_of(model, **kind):
    return type("Run", (), dict(model=model, seed=0, split=lambda self, split: data_of(split, **kind)))()


@pytest.fixture
def drawn(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "rows", lambda path, *shown: seen.append(shown))
    return seen


def check(study, drawn):
    """What the picture and the line hold, by loops over images, places and pixels"""
    line, test, model = study(run_of(Squares()), "x.png"), data_of("test"), Squares()
    ((title, images, labels, levels),) = drawn
    drawn.clear()
    assert title == "codes of A moved into B (test)" and levels == 17 and images.shape == (7, 10, 8, 12)
    assert labels == ["A", "B", "A decoded", "B decoded", *(f"B, {name} of A" for name in NAMES)]
    b = [next(m % N for m in range(n + 1, n + N) if test.y[m % N] != test.y[n]) for n in range(N)]
    x, k = test.x, model.codes(test.x)
    decoded = model.decode_codes(k)
    for row, wanted in zip(images, (x, x[b], decoded, decoded[b]), strict=False):
        assert torch.equal(row, wanted[:10].float())
    wanted = []
    for name, row in zip(NAMES, images[4:], strict=True):
        left, upper = "left" in name, "upper" in name
        mixed, inside = k[b].clone(), torch.zeros(8, 12, dtype=torch.bool)
        for i in range(2):
            for j in range(6):
                if (not left or j < 3) and (not upper or i < 1):
                    mixed[:, i, j] = k[:, i, j]
                    inside[4 * i : 4 * i + 4, 2 * j : 2 * j + 2] = True
        made = model.decode_codes(mixed)
        assert torch.equal(row, made[:10].float())
        apart = lambda a, where: ((made - a) / 16).square()[:, where].mean()  # noqa: B023
        back = (model.codes(made.round()) == mixed).double().mean()
        wanted.append(f"{name}: {apart(decoded, inside):.4f} from A and {apart(decoded[b], inside):.4f} from B, "
                      f"elsewhere {apart(decoded[b], ~inside):.4f} from B; {back:.1%} of the codes come back")
    assert line == f"squared error of a pixel, of {N} pairs; " + "\n".join(wanted)


def test_the_picture_and_the_line_are_those_of_loops(drawn):
    check(_swap.study, drawn)


PLANTED = {
    "A and B exchanged": ("torch.where(region, of_A, of_B)", "torch.where(region, of_B, of_A)"),
    "the right half": ("expand(h, w) < w / 2", "expand(h, w) >= w / 2"),
    "the lower half": ("expand(h, w) < h / 2", "expand(h, w) >= h / 2"),
    "three quarters": ("left & upper", "left | upper"),
    "sides exchanged": ("repeat_interleave(sides[0], 0).repeat_interleave(sides[1], 1)",
                        "repeat_interleave(sides[1], 0).repeat_interleave(sides[0], 1)"),
    "from the wrong image": ("apart(mixed, whole[0], inside)", "apart(mixed, whole[1], inside)"),
    "inside for elsewhere": ("whole[1], ~inside)", "whole[1], inside)"),
    "the same class": ("(y[:, None] == y) == alike", "(y[:, None] == y) != alike"),
    "the image itself": ("codes, codes[b]", "codes, codes"),
    "wrong split": ('run.split("test")', 'run.split("train")'),
    "other codes": ("*given) == k", "*given) == of_B"),
    "not squared": (".square()[..., where]", ".abs()[..., where]"),
    "labels exchanged": ('"A decoded", "B decoded"', '"B decoded", "A decoded"'),
}


@pytest.mark.parametrize("right, wrong", PLANTED.values(), ids=PLANTED)
def test_planted_mistakes_are_seen(drawn, right, wrong):
    code = planted(_swap, right, wrong)
    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        check(code.study, drawn)


def large():
    torch.manual_seed(0)
    return VQVAE((48, 48), levels=17, K=9, dim=3, width=4, halvings=1, prior_width=4, prior_blocks=1).eval()


@torch.no_grad()
def test_only_what_the_decoder_reaches_from_the_region_changes():
    """Of a VQ-VAE without norms, one code that changes tells how many pixels away the decoder reaches. Equal codes are
    equal images."""
    model = large()
    for block in model.g.blocks:
        block.norm = block.between = torch.nn.Identity()
    k = torch.randint(9, (20, *model.grid))
    one = k.clone()
    one[:, 12, 12] = (one[:, 12, 12] + torch.randint(1, 9, (20,))) % 9  # of the pixels 24 and 25
    moved = (model.decode_codes(one) - model.decode_codes(k)).abs().amax(0) > 1e-4
    at = moved.nonzero()
    reach = max(24 - at.min().item(), at.max().item() - 25)
    assert moved[24:26, 24:26].all() and 1 < reach < 20
    a, b = k[:10], k[10:]
    whole = model.decode_codes(b)
    for name, region in _swap.regions(*model.grid).items():
        changed = (model.decode_codes(torch.where(region, a, b)) - whole).abs().amax(0) > 1e-4
        right, low = (24 if "left" in name else 48), (24 if "upper" in name else 48)
        assert changed[:low, :right].double().mean() > 0.95
        assert not changed[low + reach :].any() and not changed[:, right + reach :].any()
        assert torch.equal(model.decode_codes(torch.where(region, b, b)), whole)


@torch.no_grad()
def test_norms_carry_a_little_to_the_rest():
    """Of a VQ-VAE as it is, far from the left half a mixture is nearer to B than beside it."""
    model = large()
    a, b = torch.randint(9, (2, 20, *model.grid))
    left = _swap.regions(*model.grid)["left half"]
    off = (model.decode_codes(torch.where(left, a, b)) - model.decode_codes(b)).square().mean((0, 1))
    assert off[:24].mean() > 10 * off[24:].mean() and off[24:28].mean() > 3 * off[40:].mean() > 0


def test_partners_are_the_next_of_another_class_or_of_the_same():
    y = torch.tensor([0, 0, 1, 2, 0])
    assert _swap.partners(y, False).tolist() == [2, 2, 3, 4, 2] and _swap.partners(y, True).tolist() == [1, 4, 2, 3, 0]
    assert _swap.partners(torch.zeros(3, dtype=torch.long), False).tolist() == [1, 2, 0]  # without classes: the next


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_draws_mixtures_and_other_studies_refuse_them(capsys, tmp_path):
    for name, classes in (("codes", 0), ("classes", 10)):
        checkpoint.save(name, vqvae(classes=classes), {"step": 1, "data": "digits"})
        status, out, _ = command(capsys, "study", "codes", name, "--swap")
        assert status == 0 and "left half: " in out and out.count("of the codes come back") == 3
        assert (tmp_path / name / "codes.png").stat().st_size > 20_000
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    assert "MADE has no codebook" in command(capsys, "study", "codes", "made", "--swap")[2]
    assert "--swap is for codes: embed does not take it" in command(capsys, "study", "embed", "made", "--swap")[2]
