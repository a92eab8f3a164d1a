"""Mistakes planted in studies, a wrong axis, split, class or order, turn the tests red that say what the studies show.

Other studies have theirs in their own files: embed's neighbours, forecast, inpaint, semi-supervised, swap, warp.
"""

import inspect

import pytest
import test_studies
import test_studies_facts
import test_studies_latent
import test_studies_plane
import test_studies_trainings
import test_study_film
from planted import planted
from test_studies import drawn, figures  # noqa: F401  fixtures

from genmini.studies import (
    _trainings,
    aggregate,
    alpha,
    continuity,
    embed,
    film,
    grid,
    interpolate,
    kl,
    latent_dim,
    reconstruct,
    traverse,
    upsample,
)

pytestmark = pytest.mark.usefixtures("folder_of_its_own")

PLANE, LATENT, TRAININGS, FACTS = test_studies_plane, test_studies_latent, test_studies_trainings, test_studies_facts
of = lambda tests, *names: [(tests, name) for name in names]
LAWS = {  # study -> the tests that say what it shows
    grid: of(PLANE, "test_the_grid_runs_rightwards_along_z_1_and_upwards_along_z_2"),
    traverse: of(PLANE, "test_two_dimensions_move_in_a_plane_and_the_others_stand_still")
    + of(test_studies, "test_a_dimension_that_moves_nothing_is_said_to"),
    embed: of(PLANE, "test_a_picture_of_the_plane_shows_each_code_in_the_colour_of_its_class",
              "test_codes_are_shown_along_the_axes_that_are_asked_for"),
    interpolate: of(PLANE, "test_images_of_two_classes_are_picked_by_their_place_or_by_their_codes")
    + of(test_studies, "test_interpolations_are_of_different_classes_or_of_one_and_straight_in_the_codes",
         "test_the_second_row_of_an_interpolation_blends_the_pixels"),
    continuity: of(LATENT, "test_through_a_linear_decoder_an_image_moves_as_far_as_its_code"),
    aggregate: of(LATENT, "test_the_codes_stand_in_coordinates_of_the_prior_and_its_draws_are_decoded"),
    latent_dim: of(TRAININGS, "test_figures_are_drawn_at_their_latent_dimension_over_images_of_each"),
    alpha: of(TRAININGS, "test_the_two_terms_are_drawn_at_their_weight_and_against_each_other"),
    _trainings: of(TRAININGS, "test_figures_are_drawn_at_their_latent_dimension_over_images_of_each"),
    kl: of(FACTS, "test_the_numbers_beside_the_curves_are_those_of_the_curves"),
    upsample: of(FACTS, "test_the_transposed_matrix_is_the_transposed_convolution",
                 "test_transposed_convolutions_have_a_checkerboard_and_interpolations_have_none"),
    reconstruct: of(test_studies, "test_reconstructions_stand_below_their_images_and_the_error_is_theirs"),
    film: of(test_study_film, "test_pictures_follow_by_their_steps_and_the_samples_come_last"),
}
PLANTED = {
    grid: {
        "z_2 downwards": ("torch.meshgrid(across, up.flip(0)", "torch.meshgrid(across, up"),
        "the axes exchanged": ("torch.meshgrid(across, up.flip(0)", "torch.meshgrid(up, across.flip(0)"),
        "the numbers exchanged": ("plots.ticks(panel, x.shape[-2:], across, up)",
                                  "plots.ticks(panel, x.shape[-2:], up, across)"),
        "the names exchanged": ('xlabel="z$_1$", ylabel="z$_2$"', 'xlabel="z$_2$", ylabel="z$_1$"'),
        "wrong split": ('run.split("train")', 'run.split("test")'),
    },
    traverse: {
        "upside down": ("places[1].flip(0)[:, None]", "places[1][:, None]"),
        "the axes exchanged": ("places = [low[axis] + t * (high[axis] - low[axis]) for axis in axes]",
                               "places = [low[axis] + t * (high[axis] - low[axis]) for axis in axes[::-1]]"),
        "the names exchanged": ("xlabel=called(run.model, i), ylabel=called(run.model, j)",
                                "xlabel=called(run.model, j), ylabel=called(run.model, i)"),
        "wrong split": ('train, test = run.split("train"), run.split("test")',
                        'test, train = run.split("train"), run.split("test")'),
    },
    embed: {
        "the axes exchanged": ("points, what = z[:, chosen]", "points, what = z[:, chosen[::-1]]"),
        "the names exchanged": ("xlabel=names[0], ylabel=names[1]", "xlabel=names[1], ylabel=names[0]"),
        "wrong class": ("shown, of_shown = points[:SHOWN], y[:SHOWN]", "shown, of_shown = points[:SHOWN], y.flip(0)"),
        "a legend of other colours": ("dots.cmap(dots.norm(k))", "dots.cmap(dots.norm(9 - k))"),
        "wrong split": ('run.split("test")', 'run.split("valid")'),
    },
    interpolate: {
        "the classes exchanged": ("(y[:, None] == between[0]) & (y == between[1])",
                                  "(y[:, None] == between[1]) & (y == between[0])"),
        "the farthest codes": (".argsort(stable=True)", ".argsort(stable=True, descending=True)"),
        "wrong split": ('run.split("test")', 'run.split("train")'),
        "to the wrong end": ("lines = torch.cat([x[:, :1], way, x[:, 1:]], 1)",
                             "lines = torch.cat([x[:, 1:], way, x[:, :1]], 1)"),
        "half the way": ("t = torch.linspace(0, 1, STEPS)", "t = torch.linspace(0, 0.5, STEPS)"),
    },
    continuity: {
        "another class counts": ("(train.y[nearest] == y)", "(train.y[nearest] != y)"),
        "wrong split": ('train, test = run.split("train"), run.split("test")',
                        'test, train = run.split("train"), run.split("test")'),
        "another distance": ("math.sqrt(2 * z.shape[1])", "math.sqrt(z.shape[1])"),
        "of one image": ("(2 * image.flatten(1).var(0).sum()).sqrt()", "image.flatten(1).var(0).sum().sqrt()"),
        "the curves exchanged": ("zip(panels[-2:], (moved, kept), strict=True)",
                                 "zip(panels[-2:], (kept, moved), strict=True)"),
        "labels upside down": ("yticklabels=NAMES", "yticklabels=NAMES[::-1]"),
    },
    aggregate: {
        "the splits exchanged": ('codes(run, "train", noise), codes(run, "test", noise)',
                                 'codes(run, "test", noise), codes(run, "train", noise)'),
        "wrong class": ("plots.by_class(y, ", "plots.by_class(1 - y, "),
        "the holes exchanged": ("zip(panels[2:], (~hole, hole), strict=True)",
                                "zip(panels[2:], (hole, ~hole), strict=True)"),
        "the draws as they are": ("run.decode((m + draws[some] @ root)", "run.decode((m + draws[some])"),
        "another axis": ("(z if d == 2 else z @ axes).T", "(z.flip(1) if d == 2 else z @ axes).T"),
    },
    latent_dim: {
        "wrong split": ('test = run.split("test")', 'test = run.split("train")'),
        "the names exchanged": ('f"d = {run.model.latent}" for run in runs]',
                                'f"d = {run.model.latent}" for run in runs[::-1]]'),
        "in any order": ("sorted(runs, key=lambda run: run.model.latent)", "list(runs)"),
    },
    alpha: {
        "the axes exchanged": ("of(errors, [mean for mean, _ in kls])", "of(kls, [mean for mean, _ in errors])"),
        "the terms exchanged": ("error, of(errors, alphas))", "error, of(kls, alphas))"),
        "wrong split": ('run.split("test")', 'run.split("train")'),
        "in any order": ('sorted(runs, key=lambda run: run.model.settings["alpha"])', "list(runs)"),
    },
    _trainings: {
        "samples where reconstructions belong": ("((left, back,", "((left, drawn,"),
        "train where test belongs": ('test = runs[0].split("test")', 'test = runs[0].split("train")'),
        "labels of the next": ('yticklabels=["images", *labels]', 'yticklabels=[*labels, "images"]'),
    },
    kl: {
        "the axes exchanged": ("of_normal(m, s[:, None])", "of_normal(m[:, None], s)"),
        "the directions exchanged": ("there, back = divergence(p, q).item(), divergence(q, p).item()",
                                     "back, there = divergence(p, q).item(), divergence(q, p).item()"),
        "one direction twice": ("lambda q: divergence(q, p))", "lambda q: divergence(p, q))"),
        "the way back": ('for one, other in ("ac", "ab", "bc")', 'for one, other in ("ab", "ac", "bc")'),
    },
    upsample: {
        "not transposed": ("numbers(panels[1], C.T,", "numbers(panels[1], C,"),
        "another stride": ("ones[..., :3, :3], stride=2)", "ones[..., :3, :3], stride=1)"),
        "names upside down": ("yticklabels=[*WAYS]", "yticklabels=[*WAYS][::-1]"),
        "equal weights where drawn ones belong": ("[mean for mean, _ in shares.values()]",
                                                  "[of_equal[way] for way in WAYS]"),
    },
    reconstruct: {
        "one split twice": ("images = run.split(split)", 'images = run.split("train")'),
        "above their images": ("torch.stack([rows(x), rows(back)], 1)", "torch.stack([rows(back), rows(x)], 1)"),
        "not squared": (".square().flatten(1)", ".abs().flatten(1)"),
    },
    film: {
        "the last first": ("for path, (stage, step) in pictures_of(run.folder).items()",
                           "for path, (stage, step) in {p: (s, -n) for p, (s, n) in pictures_of(run.folder).items()}"
                           ".items()"),
        "without the end": ("* end.is_file()", "* 0"),
    },
}


def seen(study, code, request, monkeypatch, figures, drawn):  # noqa: F811
    """What the tests raise if `code` is in the place of the study, a list"""
    monkeypatch.setattr(upsample, "KERNELS", 5)
    code.KERNELS, found = 5, []
    for tests, name in LAWS[study]:
        if study is _trainings:
            monkeypatch.setattr(_trainings, "sheet", code.sheet)
        else:
            monkeypatch.setattr(study, "STUDY", code.STUDY)
            monkeypatch.setattr(tests, study.__name__.rpartition(".")[2], code, raising=False)
        figures.clear(), drawn.clear()
        law, settings = getattr(tests, name), dict(of_model=dict(q=True))
        taken = inspect.signature(law).parameters
        try:
            law(**{each: settings[each] if each in settings else request.getfixturevalue(each) for each in taken})
        except Exception as error:
            found.append(error)
    return found


@pytest.mark.parametrize("study", LAWS, ids=lambda study: study.__name__.rpartition(".")[2])
def test_nothing_planted_passes(request, monkeypatch, figures, drawn, study):  # noqa: F811
    line = "def sheet(" if study is _trainings else "\nSTUDY = "
    assert seen(study, planted(study, line, line), request, monkeypatch, figures, drawn) == []


@pytest.mark.parametrize("study, right, wrong", [
    pytest.param(study, *mistake, id=f"{study.__name__.rpartition('.')[2]}: {name}")
    for study, mistakes in PLANTED.items() for name, mistake in mistakes.items()])
def test_planted_mistakes_are_seen(request, monkeypatch, figures, drawn, study, right, wrong):  # noqa: F811
    assert seen(study, planted(study, right, wrong), request, monkeypatch, figures, drawn) != []
