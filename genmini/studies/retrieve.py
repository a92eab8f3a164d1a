"""Does the model find the caption of an image among 64, and the image of a caption? Does it read their order?

The picture: images of the test split with the three nearest of 64 captions, and captions with the five nearest of 64
images; the right one is framed, or black where the others are grey. R@k: the share in which it is among the k nearest.
The 64 are the right answer and those of the images that follow in the split; one of the same words is right, too.

Of `shapes` also: R@1 of one who knows which captions are true of which images and guesses among these, because several
may be true of an image; the same for pairs of colour and shape that no train image shows (`shapes-pairs`); how often an
image is nearer to its caption than to the one with its two things exchanged, 50% for who reads no order; and colour and
shape of the object of a scene of one, by the nearest of the 24 captions "a red circle", "a red square", ...: a
classifier that saw no label.
"""

import torch

from genmini import data, plots
from genmini.data import captions, shapes, shapes_captions
from genmini.means import mean_and_error
from genmini.models.clip import AMONG, nearer
from genmini.studies._study import Study

SHOWN, CAPTIONS, IMAGES = 6, 3, 5  # rows of the picture, and what is shown of each
OTHER = "shapes-pairs"  # beside `shapes`


class Seen:
    """A split and the model's vectors of it: z of images (N, d), w of the first caption of each."""

    def __init__(self, run, split):
        self.split, self.run = split, run
        self.z, self.w = run.encode(split.x, split.y), vectors(run, split.y)
        self.s, self.same = self.z @ self.w.T, (split.y[:, None] == split.y).all(2)

    def found(self):
        """{what is found: how many wrong answers are as near, (N,)}"""
        return {"caption": nearer(self.s, self.same), "image": nearer(self.s.T, self.same)}

    def ordered(self):
        """1 where the caption of a relation is nearer to its image than with its things exchanged, else 0: (R,)"""
        other = map(shapes_captions.exchanged, self.split.captions)
        other = {n: text for n, text in enumerate(other) if text}
        n = torch.tensor([*other])
        w = vectors(self.run, captions.WORDS.encode([*other.values()], captions.LENGTH))
        return (self.s.diagonal()[n] > (self.z[n] * w).sum(1)).double()

    def by_truth(self):
        """{what is found: the chance of who knows what is true and guesses among the true answers, (N,)}"""
        N, said = len(self.z), [shapes_captions.parse(caption) for caption in self.split.captions]
        true = torch.zeros(N, N, dtype=torch.bool)  # caption m of image n
        for n, scene in enumerate(self.split.scenes):
            for k in range(1 - AMONG, AMONG):
                m = (n + k) % N
                true[n, m] = shapes_captions.true_of(said[m], scene)
        wrong = {"caption": true, "image": true.T}
        return {what: 1 / (1 + nearer(known.double(), self.same)) for what, known in wrong.items()}

    def zero_shot(self):
        """{"colour": 1 where the nearest of the 24 captions has the colour, else 0; "shape", "both"}, of scenes of one
        object"""
        n = [n for n, scene in enumerate(self.split.scenes) if len(scene.objects) == 1]
        objects = [self.split.scenes[k].objects[0] for k in n]
        w = vectors(self.run, captions.WORDS.encode([f"a {c} {k}" for c, k in shapes.PAIRS], captions.LENGTH))
        nearest = [shapes.PAIRS[k] for k in (self.z[n] @ w.T).argmax(1).tolist()]
        each = [(c == o.colour, k == o.shape) for (c, k), o in zip(nearest, objects, strict=True)]
        colour, shape = torch.tensor(each, dtype=torch.float64).T
        return {"colour": colour, "shape": shape, "both": colour * shape}


@torch.no_grad()
def vectors(run, y):
    """Numbers of words (N, L) -> w (N, d) on the CPU, a batch at a time"""
    return torch.cat([run.model.encode_text(y_b).cpu() for y_b in y.split(1000)])


def study(run, path):
    seen = Seen(run, run.split("test"))
    picture(path, seen)
    parts = [_retrieval(seen)]
    if seen.split.name == "shapes":
        pairs = Seen(run, data.load(OTHER, "test", **run.metadata["options"]))
        parts = [f"{_retrieval(seen)} ({_truth(seen)})", f"of {OTHER} {_retrieval(pairs)} ({_truth(pairs)})"]
        for name, each in (("", seen), (f" of {OTHER}", pairs)):
            parts.append(f"{_share(each.ordered())}{name} nearer to their caption than with its things exchanged")
            shares = [f"{what} {_share(right)}" for what, right in each.zero_shot().items()]
            parts.append(f"by 24 captions {', '.join(shares)} right{name}")
    return "; ".join(parts)


def _retrieval(seen):
    shares = [f"{what} R@{k} {_share((wrong < k).double())}" for what, wrong in seen.found().items() for k in (1, 5)]
    return f"among {min(AMONG, len(seen.z))} {', '.join(shares)}"


def _truth(seen):
    found = (f"{what} {_share(chance)}" for what, chance in seen.by_truth().items())
    return f"R@1 by a guess among what is true: {', '.join(found)}"


def _share(right):
    mean, error = mean_and_error(right)
    return f"{mean:.1%} +- {error:.1%}"


def picture(path, seen):
    figure, panels = plots.new_figure(min(SHOWN, len(seen.z)), 2, 5.0, 1.15)
    for n, (left, right) in enumerate(panels):
        m = (n + torch.arange(min(AMONG, len(seen.z)))) % len(seen.z)
        plots.show(left, seen.split.x[n : n + 1], seen.split.levels, 1)
        left.set_anchor("W")
        for row, k in enumerate(m[seen.s[n, m].argsort(descending=True)[:CAPTIONS]].tolist()):
            left.text(1.08, 0.85 - 0.35 * row, _folded(seen.split.captions[k]), transform=left.transAxes, fontsize=8,
                      va="center", color="black" if seen.same[n, k] else "0.6")
        nearest = m[seen.s[m, n].argsort(descending=True)[:IMAGES]]
        plots.show(right, seen.split.x[nearest], seen.split.levels, IMAGES)
        right.set_anchor("W")
        right.set_title(seen.split.captions[n], fontsize=8, loc="left")
        H, W = seen.split.shape[-2:]
        for k in (seen.same[n, nearest]).nonzero()[:, 0].tolist():
            x = [k * (W + 1) - 0.5, k * (W + 1) + W - 0.5]
            right.plot([x[0], x[1], x[1], x[0], x[0]], [-0.5, -0.5, H - 0.5, H - 0.5, -0.5], color="tab:orange", lw=2)
    panels[0][0].set_title(f"the nearest of {len(m)} captions", fontsize=9, loc="left")
    figure.suptitle(f"{seen.run.model.title} finds captions of images, and images of captions ({seen.split.split})",
                    fontsize=10)
    plots.save(figure, path)


def _folded(text, width=60):
    """The text in lines of at most so many characters"""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


STUDY = Study(study, needs=("encode", "encode_text"))
