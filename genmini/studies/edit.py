"""What changes in a sample when one word of its caption changes and the noise stays?

The picture: captions, each over the same with one word replaced. The samples of a column have the same noise, at all
steps of the sampler.

The numbers are of N pairs of captions as "a small red circle" and "a small blue circle": an object of a test scene, and
the same with another size, colour or shape, one as often as the other. A pair is right if both samples show one object,
and all three words of its caption are true of it. The reader (genmini/data/shapes_reader.py) is strict: what is blurred
is unreadable, and wrong. So the share is told again by the scene that is nearest to each sample, and then for the word
that was replaced alone, whatever the other two are.

What these captions do not say, the place and the ground, is up to the noise. The last two lines compare it by the
nearest scenes, where the noise is the same and where it is another: how often the ground stayed, how much the pixels
differ where neither sample has an object, and how far the object moved where each has one. The number in brackets says
of how many pairs.
"""

import math
from dataclasses import replace

import torch

from genmini import metrics, plots, samples
from genmini.data import shapes, shapes_captions, shapes_reader
from genmini.data.shapes_captions import Caption, Thing
from genmini.means import mean_and_error
from genmini.studies._study import Study
from genmini.studies.caption import misfit

N, COLUMNS = 99, 8  # pairs; samples of a row
KINDS = {"colour": shapes.COLOURS, "shape": shapes.SHAPES, "size": shapes.RADIUS}
SHOWN = {  # a caption: the words that are replaced, one at a time
    "a small red circle": (("red", "blue"), ("circle", "square"), ("small", "big")),
    "a red circle left of a blue square": (("left of", "right of"), ("left of", "above"), ("red", "yellow"),
                                           ("square", "triangle")),
    "two purple squares on a white ground": (("two", "three"), ("white", "black"), ("purple", "green")),
}


def pairs(n):
    """-> n of (kind, Caption, the Caption with another word of this kind), always the same; each kind as often"""
    scenes, _ = shapes.read("shapes", "test", 20 * n)
    objects = [scene.objects[0] for scene in scenes if len(scene.objects) == 1][:n]
    found = []
    for i, o in enumerate(objects):
        kind, before = [*KINDS][i % len(KINDS)], Thing(1, o.size, o.colour, o.shape)
        others = [replace(before, **{kind: word}) for word in KINDS[kind]]
        others = [thing for thing in others if thing != before and (thing.colour, thing.shape) in shapes.SEEN]
        found.append((kind, Caption((before,)), Caption((others[i // len(KINDS) % len(others)],))))
    return found


def study(run, path):
    words, rows, labels = pairs(N), [], []
    for text, changes in SHOWN.items():
        texts = [text, *(text.replace(*change) for change in changes)]
        rows += [samples.draw(run.model, COLUMNS, run.seed, y=each) for each in texts]  # of the same noise
        labels += [text, *(f"{old} -> {new}" for old, new in changes)]
    plots.rows(path, f"{run.model.title}: one word replaced, the noise kept", torch.stack(rows), labels,
               run.model.levels)
    a, b, other = (Drawn(run.model, [(each[0], each[k]) for each in words], seed) for k, seed in
                   ((1, run.seed), (2, run.seed), (2, run.seed + 1)))
    rows = {kind: torch.tensor([each[0] == kind for each in words]) for kind in KINDS}
    share = lambda right: ", ".join([_share(right), *(f"{kind} {_share(right[rows[kind]])}" for kind in KINDS)])
    return (f"of {len(words)} pairs with the same noise right: {share(a.right & b.right)}\n"
            f"by the nearest scenes: {share(a.near & b.near)}\nthe replaced word alone: {share(a.word & b.word)}\n"
            f"with the same noise {_changed(a, b)}\nwith other noise {_changed(a, other)}")


class Drawn:
    """Samples of captions and the scenes nearest to them; whether the caption is true of the scene that is read, of the
    nearest scene, and its word of one kind of the nearest scene, (N,) each"""

    def __init__(self, model, words, seed):
        """words: N of (kind, Caption)"""
        captions = [caption for _, caption in words]
        self.x = samples.draw(model, len(captions), seed, y=[*map(shapes_captions.write, captions)])
        self.scenes = shapes_reader.read(self.x, tolerance=math.inf)
        self.right, self.near = _true(captions, shapes_reader.read(self.x)), _true(captions, self.scenes)
        self.word = _true([caption.only(kind) for kind, caption in words], self.scenes)


def _true(captions, scenes):
    return torch.tensor([scene is not None and shapes_captions.true_of(caption, scene)
                         for caption, scene in zip(captions, scenes, strict=True)])


def _share(right):
    mean, error = mean_and_error(right)
    return f"{mean:.0%} +- {error:.1%}"


def _changed(a, b):
    """What differs between samples a and b beside the word, in words"""
    found = [changed(*each) for each in zip(a.x, b.x, a.scenes, b.scenes, strict=True)]
    found = metrics.shares({name: torch.tensor([each[name] for each in found]).double() for name in found[0]})
    words = {"ground": "the ground stayed in {:.0%} +- {:.1%} ({})",
             "pixels": "pixels beside objects differ by {:.1f} +- {:.1f} levels ({})",
             "moved": f"the object moved {{:.1f}} +- {{:.1f}} of {shapes.UNITS} units ({{}})"}
    return ", ".join(words[name].format(*numbers) for name, numbers in found.items())


def changed(x, y, one, other):
    """Two images and the Scenes nearest to them -> "ground", whether it is the same; "pixels", the root mean square of
    y - x where neither has an object; "moved", the units between the objects of two images of one each; else NaN"""
    objects = *one.objects, *other.objects
    free = ~sum((covered(o, x.shape[-1]) for o in objects), torch.zeros(x.shape[1:], dtype=torch.bool))
    moved = len(one.objects) == len(other.objects) == 1
    return {"ground": one.ground == other.ground,
            "pixels": (y.double() - x.double())[:, free].square().mean().sqrt().item(),
            "moved": math.dist(*((o.x, o.y) for o in objects)) if moved else math.nan}


def covered(o, side):
    """Which pixels lie within GAP units of the box of an object, (side, side)"""
    r, left = shapes.RADIUS[o.size] + shapes.GAP, torch.arange(side) * shapes.UNITS / side
    near = lambda v: (left < v + r) & (left + shapes.UNITS / side > v - r)
    return near(o.y)[:, None] & near(o.x)


STUDY = Study(study, needs=("sample",), misfit=misfit)
