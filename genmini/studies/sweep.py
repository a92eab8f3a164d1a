"""What does guidance do to samples of a caption: are they what it says, and do they differ in what it leaves open?

The captions are "a red circle" and others like it. For each weight w of guidance and each threshold, EACH samples are
drawn of each caption, always from the same noise. The curves have

    right        the share of samples that show one object, of this colour and shape              (1)
    nearest      the same by the scene nearest to the sample, which may be unreadable             (2)
    apart        how many units lie between the objects of two samples of one caption             (3)
    ground       how often the grounds of two samples of one caption differ                       (4)

(3) is of pairs whose nearest scenes have one object each, (4) of all pairs, and both are means over captions. A dashed
line has the same of scenes of the train split, of which the captions are true: below it samples are less diverse than
the data.

The picture shows a sample of each caption by the static threshold as w grows, then by each threshold at the largest w.
Without a threshold a large w can make numbers that are no longer finite; the answer says so, and the row is empty. FID
is left out: genmini has no network that judges scenes. In DALL-E 2 w is that of the decoder; the prior keeps its own.
"""

import itertools
import math

import torch

from genmini import metrics, plots, samples
from genmini.data import shapes, shapes_captions, shapes_reader
from genmini.studies._study import Study
from genmini.studies.caption import misfit

EACH, OF_DATA = 6, 50  # samples of a caption; scenes of it
WEIGHTS, THRESHOLDS = (1.0, 2.0, 3.0, 5.0, 10.0), ("static", "dynamic", "none")
TEXTS = ("a red circle", "a red cross", "a green square", "a green triangle", "a blue circle", "a blue square",
         "a yellow triangle", "a yellow cross", "a purple square", "a cyan circle")
NAMES = {"right": "right {:.0%} +- {:.1%}", "nearest": "nearest {:.0%} +- {:.1%}",
         "apart": "{:.1f} +- {:.1f} units apart", "ground": "other grounds {:.0%} +- {:.1%}"}
TITLES = "right", "right by the nearest scene", "units between two samples", "two samples with other grounds"


def study(run, path):
    model, found, rows = run.model, {}, {}
    texts = [text for text in TEXTS for _ in range(EACH)]
    for threshold, w in itertools.product(THRESHOLDS, WEIGHTS):
        try:
            x = samples.draw(model, len(texts), run.seed, y=texts, guidance=w, threshold=threshold)
        except ArithmeticError:  # they are no longer finite
            x, found[threshold, w] = torch.full((len(texts), *model.shape), math.nan), {}
        else:
            found[threshold, w] = measured(x)
        rows[threshold, w] = x[::EACH].float()
    data = differences(of_data())
    picture(path, model, rows, found, data)
    return "\n".join([f"data: {written(data)}", *(
        f"{threshold}, w = {w:g}: {written(numbers)}" for (threshold, w), numbers in found.items())])


def written(numbers):
    """{name of NAMES: (mean, error, ...)}, in words"""
    words = [NAMES[name].format(*each) for name, each in numbers.items()]
    return ", ".join(words) or "samples are no longer finite"


def measured(x):
    """EACH samples of each of TEXTS, one caption after another -> {name of NAMES: (mean, error, of how many)}"""
    texts = [text for text in TEXTS for _ in range(EACH)]
    true = lambda scenes: torch.tensor([scene is not None and shapes_captions.true_of(text, scene)
                                        for text, scene in zip(texts, scenes, strict=True)]).double()
    read, nearest = shapes_reader.read(x), shapes_reader.read(x, tolerance=math.inf)
    right = metrics.shares({"right": true(read), "nearest": true(nearest)})  # (1), (2)
    return right | differences([nearest[n : n + EACH] for n in range(0, len(nearest), EACH)])


def of_data():
    """For each of TEXTS, the first scenes of the train split of which it is true"""
    ones = [scene for scene in shapes.read("shapes", "train")[0] if len(scene.objects) == 1]
    true = lambda text: (scene for scene in ones if shapes_captions.true_of(text, scene))
    return [[*itertools.islice(true(text), OF_DATA)] for text in TEXTS]


def differences(of_captions):
    """Lists of scenes, one list of each caption -> (3) and (4), {name: (mean, error, of how many captions)}"""
    apart, ground = [], []
    for scenes in of_captions:
        pairs = [*itertools.combinations(scenes, 2)]
        centres = [[(o.x, o.y) for scene in pair for o in scene.objects] for pair in pairs
                   if len(pair[0].objects) == len(pair[1].objects) == 1]
        apart.append(torch.tensor([math.dist(*each) for each in centres]).mean())  # NaN if there is none
        ground.append(torch.tensor([one.ground != other.ground for one, other in pairs]).double().mean())
    return metrics.shares({"apart": torch.stack(apart), "ground": torch.stack(ground)})  # (3), (4)


def picture(path, model, rows, found, data):
    default, largest = THRESHOLDS[0], WEIGHTS[-1]
    shown = {f"w = {w:g}": rows[default, w] for w in WEIGHTS[:-1]}
    shown |= {f"w = {largest:g}, {threshold}": rows[threshold, largest] for threshold in THRESHOLDS}
    figure, panels = plots.new_figure(2, 4, 3.0, 2.8)
    for panel in panels[:, :2].flat:
        panel.remove()
    left = figure.add_subplot(panels[0, 0].get_gridspec()[:, :2])
    x, H = torch.stack([*shown.values()]), model.shape[1] + 1
    plots.show(left, x.flatten(0, 1), model.levels, x.shape[1])
    middle = lambda n: [k * H + H / 2 - 1 for k in range(n)]
    left.set(yticks=middle(len(shown)), yticklabels=shown, xticks=middle(len(TEXTS)))
    left.set_xticklabels([text.removeprefix("a ").replace(" ", "\n") for text in TEXTS], fontsize=7)
    for panel, name, title in zip(panels[:, 2:].flat, NAMES, TITLES, strict=True):
        for threshold in THRESHOLDS:
            means, errors, *_ = zip(*(found[threshold, w].get(name, [math.nan] * 3) for w in WEIGHTS), strict=True)
            panel.errorbar(WEIGHTS, means, errors, fmt="o-", capsize=2, label=threshold)
        if name in data:
            panel.axhline(data[name][0], color="0.5", linestyle="--", label="data")
        panel.set_title(title, fontsize=10)
        panel.set_ylim(bottom=0)
    for panel in panels[1, 2:]:
        panel.set_xlabel("w")
    panels[1, 2].legend(fontsize=7)
    figure.suptitle(f"{model.title}: guidance by captions of one object", fontsize=11)
    plots.save(figure, path)


STUDY = Study(study, needs=("guidance", "threshold"), misfit=misfit)
