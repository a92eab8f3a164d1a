"""What several commands print of a model: the lines of its figures."""


def figures(model, split, k=0):
    """Print the model's figures on the split, each on a line. k: draws for an image, where log p is bounded by them."""
    from genmini import experiment
    from genmini.data import toys

    shown = experiment.figures(model, split, k)
    # a model that draws nothing, as a classifier, finds the class itself
    condition = ", given the class" * bool(model.classes and not model.cannot("sample"))
    if shown[0].name:
        widest = max(len(figure.name) for figure in shown if figure.error is not None)
        for figure in shown:
            print(f"{split.split:<9} {figure.name:<{widest}} {_number(figure)}")
        what = "images" if split.levels else "points"
        print(f"{'':<9} mean and standard error over {len(split)} {what} of {split.name}{condition}")
        return
    if split.levels:
        counted = f"{len(split)} images"
    else:
        counted = f"{len(split)} points" if split.name in toys.TOYS else f"{split.count} numbers"
    at_most = ", at most" * bool(shown[0].bits and model.is_bound)
    mean = f"(mean and standard error over {counted} of {split.name})"
    print(f"{split.split:<9} {_number(shown[0])}{at_most}{condition}   {mean}")
    for truth in shown[1:]:
        print(f"{truth.name:<9} {_number(truth)}   (of the density that these points were drawn from)")


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
