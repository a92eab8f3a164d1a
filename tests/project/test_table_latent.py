"""Tests of the table of latent models: what is stored is not measured again, a row holds what measuring the model
gives, and docs/results.md shows what is stored."""

import math

import pytest
import torch
from table_latent import Latent
from trained import without_label

from genmini import data, models


@pytest.fixture
def table(tmp_path):
    """The table, with results and a document of the test's own."""
    (tmp_path / "results.md").write_text("before\n<!-- latent -->\nold\n<!-- /latent -->\nafter\n")
    return Latent(tmp_path / "results", tmp_path / "results.md")


@pytest.fixture
def recipes(only_these):
    """Three models of one quick recipe each, and two that have no row; a commit that is not dirty."""
    quick = lambda on, **model: {"digits": dict(data=on, model=model, train=dict(steps=2, every=2, rate=0.01))}
    recipes = {"autoencoder": quick("digits", hidden=4), "cvae": quick("digits-threshold", hidden=4),
               "made": quick("digits"),
               "vqvae": quick("digits", width=4, prior_width=4)}
    recipes["vqvae"]["digits"]["prior"] = dict(steps=1, every=1)
    recipes["classifier"] = quick("digits")  # codes no image; it judges samples
    return only_these(recipes)


def test_only_what_is_missing_is_measured(table, recipes):
    todo = table.missing()
    assert todo == [(name, "digits", seed) for name in ("autoencoder", "cvae", "vqvae") for seed in range(3)]
    rows = {}
    for run in todo[::3]:
        rows[run[0]] = table.measure(run)
        table.store(rows[run[0]])
    assert table.missing() == [run for run in todo if run[2]]
    assert all(row["fid"] and row["squared_error"] and int(row["parameters"]) > 100 for row in rows.values())
    assert (float(rows["cvae"]["iwae"]) > float(rows["cvae"]["elbo"]) and rows["cvae"]["right_class"]
            and not rows["cvae"]["perplexity"])
    assert (not rows["autoencoder"]["elbo"]
            and float(rows["vqvae"]["elbo"]) < -float(rows["vqvae"]["reconstruction"]) < 0)
    assert float(rows["vqvae"]["perplexity"]) >= 1
    given, without = (float(rows["cvae"][name]) for name in ("iwae_given_y", "iwae"))
    # a label is worth log 1/p(y) at most; 0.5: p(y) of the rarest class, and noise
    assert given - without < math.log(10) + 0.5
    assert not rows["vqvae"]["elbo_given_y"] and not rows["autoencoder"]["iwae_given_y"]
    recipes["vqvae"]["digits"]["prior"]["steps"] = 2  # other settings, of a later stage: measured anew
    assert table.missing(["vqvae"]) == todo[6:]


def test_without_a_label_it_is_the_mixture_of_all_classes():
    """For known p(x|y) both bounds are log sum_y p(y) p(x|y). Where the ELBO is noisy, its bound stays below; a plain
    sum does not."""
    torch.manual_seed(1)
    p_y, log_p = torch.tensor([0.2, 0.5, 0.3]), torch.randn(3, 400) * 3 - 20

    class Known:
        noise = 0.0

        def figures(self, x, y=None, k=0):
            each = log_p[y[0]]
            return {"elbo": each + self.noise * torch.randn(len(x)), **({f"iwae-{k}": each} if k else {})}

    x = torch.zeros(400, 4)
    model, truth = Known(), (log_p + p_y.log()[:, None]).logsumexp(0).mean().item()
    mean = lambda: {name: each.mean().item() for name, each in without_label(model, x, p_y, 30).items()}
    within = 8 * 2**-24 * 20  # float32: some roundings of logs of about -20
    assert mean() == {"elbo": pytest.approx(truth, abs=within), "iwae-30": pytest.approx(truth, abs=within)}
    model.noise = 2.0  # ten deviations of the mean of 400 images are 1
    assert truth - 3 < mean()["elbo"] < truth


def test_without_a_label_an_exact_likelihood_stays_exact_in_every_batch():
    """p(x) = sum_y p(y) p(x|y) of 2,300 images, which are judged in three batches."""
    torch.manual_seed(2)
    p_y = torch.tensor([0.2, 0.5, 0.3])

    class Exact:
        def figures(self, x, y=None, k=0):
            return {"nll": x[:, 0] * (1 + y) + y}

    x = torch.rand(2300, 1)
    truth = -(p_y.log() - (x * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([0.0, 1.0, 2.0]))).logsumexp(1)
    (found,) = without_label(Exact(), x, p_y, 30).values()
    torch.testing.assert_close(found, truth, rtol=0, atol=8 * 2**-24 * truth.max().item())  # of three terms and a log


def test_the_document_shows_mean_and_deviation_the_best_first(table, recipes):
    row = dict.fromkeys(table.columns, "") | dict(data="digits", recipe="digits", unit="nats", parameters=1234,
                                                  cpu_seconds="10", fid_real="12.34")
    for who, elbo, unit in (("autoencoder", -90.0, "nats"), ("vqvae", -80.0, "nats")):
        for seed, off in enumerate((-1.0, 0.0, 1.0)):
            measured = dict(who=who, seed=seed, elbo=elbo + off, squared_error=2.0, unit=unit,
                            settings=table.settings(who, "digits"))
            table.store(row | measured)
    row |= dict(who="cvae", data="digits-threshold", elbo=30.0, unit="nats of a density of v")
    table.store(row | dict(seed=0, settings=table.settings("cvae", "digits")))
    table.store(row | dict(seed=1, settings="of a recipe that is no more"))
    table.write()
    text = table.document.read_text()
    assert (text.startswith("before\n<!-- latent -->\n") and text.endswith("<!-- /latent -->\nafter\n")
            and "old" not in text)
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert lines[0] == "| `vqvae` (digits) | 80.00 ± 1.00 |  |  |  |  | 2.00 ± 0.00 |  |  |  | 1,234 | 10 |"
    assert lines[1].startswith("| `autoencoder` (digits) | 90.00 ± 1.00 |")
    assert (lines[2].startswith("| `cvae` (digits), 1 seed | density -30.00 |")
            and "| test images |  |  |  |  |  |  | 12.3 |" in text)
    table.write()
    assert table.document.read_text() == text


# ---- what a short training gives: the claims beside the table, in small ----------------------------------------------


def test_a_short_training_shows_what_the_table_says(table, monkeypatch):
    """After 150 steps of the binary recipes convolutions beat the perceptron, and a label is worth something, at most
    log 1/p(y) on average. The CVAE, which is given the class, beats the VAE even by log p(x), and draws the class asked
    for far more often than by chance."""
    recipes = models.recipes
    monkeypatch.setattr(models, "recipes",
                        lambda name: {key: recipe | {"train": recipe["train"] | dict(steps=150, every=150)}
                                      for key, recipe in recipes(name).items()})
    table.draws = 50
    threads = torch.get_num_threads()
    try:
        conv, mlp, cvae = (table.measure((*run, 0))
                           for run in (("vae", "digits"), ("vae", "digits-mlp"), ("cvae", "digits")))
    finally:
        torch.set_num_threads(threads)
    for bound in ("elbo", "iwae"):
        assert float(conv[bound]) > float(mlp[bound])
        assert float(cvae[bound]) > float(conv[bound])
        # log 10 = 2.303; the rarest class is 9.9% of train
        assert 0.5 < float(cvae[f"{bound}_given_y"]) - float(cvae[bound]) < 2.4
    assert 15 < -float(conv["iwae"]) < -float(conv["elbo"]) < 24.57  # that is what the histogram of each pixel costs
    assert float(cvae["right_class"]) > 0.3 and float(cvae["fid"]) < float(conv["fid"]) < float(mlp["fid"])


# ---- what is stored, of the recipes as they are ----------------------------------------------------------------------


def of_today():
    """The stored rows of today's recipes, by model and recipe: three seeds of each."""
    table, groups = Latent(), {}
    for row in table.of_today():
        groups.setdefault((row["who"], row["recipe"]), []).append(row)
    assert (len(groups) >= 12
            and all(sorted(row["seed"] for row in group) == ["0", "1", "2"]
                    for group in groups.values())), groups.keys()
    return groups


@pytest.mark.parametrize("conv, mlp", [("digits", "digits-mlp"), ("digits-levels", "digits-levels-mlp")])
def test_convolutions_beat_the_perceptron_at_equal_parameters(conv, mlp):
    conv, mlp = (of_today()["vae", key] for key in (conv, mlp))
    assert min(float(row["iwae"]) for row in conv) > max(float(row["iwae"]) for row in mlp)
    assert 0.9 < int(conv[0]["parameters"]) / int(mlp[0]["parameters"]) < 1.1


def test_the_text_beside_the_table_has_its_numbers():
    """docs/results.md states by how much convolutions win, by IWAE and by the ELBO, the exact squared error of ten
    principal components, and which network the recipe of the conditional VQ-VAE was chosen with."""
    text, groups = " ".join(Latent().document.read_text().split()), of_today()
    mean = lambda bound, recipe: sum(float(row[bound]) for row in groups["vae", recipe]) / 3
    gain = lambda bound, conv, mlp: mean(bound, conv) - mean(bound, mlp)
    two, many = ("digits", "digits-mlp"), ("digits-levels", "digits-levels-mlp")
    assert f"by {gain('iwae', *two):.2f} nats with two levels and by {gain('iwae', *many):.2f} with 17" in text
    assert (f"By the ELBO it is {gain('elbo', *many):.2f} nats with 17 levels, "
            f"but only {gain('elbo', *two):.2f} with two") in text
    lead = lambda bound, recipe: sum(float(row[bound]) for row in groups["cvae", recipe]) / 3 - mean("iwae", recipe)
    for part in (f"by {lead('iwae_given_y', 'digits'):.2f} nats of IWAE with two levels and",
                 f"by {lead('iwae_given_y', 'digits-levels'):.2f} with 17; by log p(x) it is ahead",
                 f"ahead by {lead('iwae', 'digits'):.2f} with two, "
                 f"and behind by {-lead('iwae', 'digits-levels'):.2f} with 17"):
        assert part in text
    below = lambda group: sum(float(row["fid"]) for row in group) / 3 < float(group[0]["fid_real"])
    assert {key for key, group in groups.items() if below(group)} == {
        ("vqvae", "conditional"), ("cvae", "digits"), ("ssvae", "digits")}
    assert "its FID, as those of the binary CVAE and of SSVAE, is below the FID of real images" in text
    assert ("The recipe of the conditional VQ-VAE was chosen with `digits-v1`, the network that then judges it, so its "
            "FID and its share of right classes are no independent evidence.") in text
    train, test = (data.load("digits", split).x.flatten(1).double() / 16 for split in ("train", "test"))
    axes = torch.linalg.svd(train - train.mean(0), full_matrices=False)[2][:10]
    back = train.mean(0) + (test - train.mean(0)) @ axes.T @ axes
    exact, clamped = ((test - each).square().sum(1).mean() for each in (back, back.clamp(0, 1)))
    assert f"squared error of {clamped:.2f} when clamped, and of {exact:.2f} without" in text


def test_conditional_models_draw_what_was_asked_for():
    """The classifier names the class asked for as often as that of real test images (97.0% of grey ones, 95.3% of
    binary ones), less three standard errors of the difference between 900 samples and 300 images. SSVAE knows 100
    labels, and is no part of this."""
    groups = {key: group for key, group in of_today().items() if group[0]["right_class"] and key[0] != "ssvae"}
    assert len(groups) == 3
    for key, group in groups.items():
        real = {"digits": 0.970, "digits-threshold": 0.953}[group[0]["data"]]
        right = [float(row["right_class"]) for row in group]
        assert sum(right) / 3 > real - 3 * math.sqrt(real * (1 - real) * (1 / 900 + 1 / 300)), (key, right)
