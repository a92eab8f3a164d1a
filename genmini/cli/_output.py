"""What commands print of a model: the lines of its figures, and of images that it is asked about."""

NOUNS = {"images": "images", "points of the plane": "points", "a series": "series", "text": "texts"}
OF_ALL = {  # figures of a split beside its likelihood
    "truth": "of the density that these points were drawn from",
    "perplexity": "of a word, the end of a text counted as one",
}


def figures(model, split, k=0):
    """Print the model's figures on the split, each on a line. k: draws for an image, where log p is bounded by them."""
    from genmini import data, experiment

    kind, examples = data.kind(split.name), f"{len(split)} {NOUNS[data.kind(split.name)]}"
    shown = experiment.figures(model, split, k)
    # a model that draws nothing, as a classifier, finds the class itself
    condition = f", given the {'caption' if model.captions else 'class'}"
    condition *= model.takes_y and not model.cannot("sample")
    if shown[0].name:
        widest = max((len(figure.name) for figure in shown if figure.error is not None), default=0)
        for figure in shown:
            print(f"{split.split:<9} {figure.name:<{widest}} {_number(figure)}")
        print(f"{'':<9} mean and standard error over {examples} of {split.name}{condition}")
        return
    counted = f"{split.count} numbers" if kind == "a series" else examples
    at_most = ", at most" * bool(shown[0].bits and model.is_bound)
    mean = f"(mean and standard error over {counted} of {split.name})"
    print(f"{split.split:<9} {_number(shown[0])}{at_most}{condition}   {mean}")
    for figure in shown[1:]:
        of_all = f"   ({OF_ALL[figure.name]})" if figure.name in OF_ALL else ""
        print(f"{figure.name:<9} {_number(figure)}{of_all}")


def images(ranked):
    """Print what was done to images of the user's own, then how likely they are, the likeliest first."""
    width = max(len(each.path) for each in ranked)
    for each in ranked:
        print(f"{each.path:<{width}}  {each.words}")
    for place, each in enumerate(ranked, 1):
        bits = "" if each.bits is None else f", {each.bits:.4f} bits/dim"
        bits += ", at most" * each.at_most
        bits += "" if each.y is None else f"   (likeliest as class {each.y})"
        print(f"{place:>3}. {each.path:<{width}}  {each.nats:.3f} {each.unit}{bits}")


def _number(figure):
    text = f"{figure.mean:.3f}"
    if figure.error is not None:
        text += f" +- {figure.error:.3f}"
    if figure.unit:
        text += f" {figure.unit}"
    if figure.bits:
        mean, error = figure.bits
        text += f", {mean:.4f}{'' if error is None else f' +- {error:.4f}'} bits/dim"
    return text
