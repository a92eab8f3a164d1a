"""The study of codes counts what it says, of any model with a codebook, and refuses others."""

import pytest
import torch

from genmini import checkpoint, data, studies
from genmini.models.made import MADE
from genmini.models.vqvae import VQVAE
from genmini.studies.codes import count

TEST = data.load("digits", "test")


def vqvae(halvings=1, classes=0):
    """Codes on images, but for two far away."""
    torch.manual_seed(0)
    model = VQVAE((8, 8), levels=17, K=9, dim=3, width=4, halvings=halvings, classes=classes, prior_width=4,
                  prior_blocks=1).eval()
    with torch.no_grad():
        model.codebook.weight[:7] = model.z(TEST.x[:7], *[TEST.y[:7]] * bool(classes))[:, 0, 0]
        model.codebook.weight[7:] = 1e3
    return model


def test_codes_and_their_patches_are_counted():
    """Image after image, place after place; patches of places 4 x 4 (2 x 2 pixels each) and 2 x 2 (4 x 4 pixels)."""
    for halvings, side, classes in ((1, 2, 0), (2, 4, 0), (2, 4, 10)):
        model = vqvae(halvings, classes)
        x, y = TEST.x[:30], TEST.y[:30] if classes else None
        counts, patches = count(model, x, y)
        k, image = model.codes(x, y), model.reconstruct(x, y).detach()
        sums, h = torch.zeros(9, side, side, dtype=torch.float64), 8 // side
        by_hand = torch.zeros(h, h, 9, dtype=torch.int64)
        for n in range(30):
            for i in range(h):
                for j in range(h):
                    by_hand[i, j, k[n, i, j]] += 1
                    sums[k[n, i, j]] += image[n, side * i : side * (i + 1), side * j : side * (j + 1)]
        assert torch.equal(counts, by_hand) and counts.sum() == 30 * h * h
        total = counts.sum((0, 1))
        assert (total[7:] == 0).all() and (total[:7] > 0).sum() > 3
        total = total.clamp(min=1).view(-1, 1, 1)
        assert ((patches[:, 0] - sums / total).abs() <= (total + 1) * 2**-53 * sums / total).all()  # sums in any order


def test_the_picture_of_a_run_and_a_run_that_does_not_fit(tmp_path):
    for classes in (0, 10):
        checkpoint.save(tmp_path / "codes", vqvae(classes=classes), {"step": 1, "data": "digits"})
        line = studies.study("codes", tmp_path / "codes")
        assert "of 9 codes are used, perplexity" in line and (tmp_path / "codes" / "codes.png").stat().st_size > 20_000
    checkpoint.save(tmp_path / "made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    with pytest.raises(studies.Misfit, match="made does not fit: MADE has no codebook: codes is for vqvae"):
        studies.study("codes", tmp_path / "made")
