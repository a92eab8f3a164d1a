"""What is said and shown of a model, at the end of its training and whenever it is asked for: a picture, and its figures on data."""


def picture(path, model, splits):
    """Data beside what the model makes of it."""
    import torch

    from genmini import data, plots
    from genmini.train import judge

    test = splits["test"]
    if not hasattr(model, "sample"):
        there = test.to(next(model.parameters()).device)
        hardest = judge(model, there.x, there.y).argsort(descending=True).cpu()
        panels = {"data (test)": test.x[:64], f"hardest for {type(model).__name__} (test)": test.x[hardest[:64]]}
        plots.side_by_side(path, panels, test.levels)
    elif test.levels:
        name, device, side = type(model).__name__, next(model.parameters()).device, min(8, len(test))
        columns, given, how = side, False, {}
        if getattr(model, "classes", 0) and hasattr(model, "reconstruct"):  # a column a class
            columns = model.classes
            given, how["y"] = True, torch.arange(side * columns, device=device) % columns
        panels = {"data (test)": test.x[: side * columns]}
        if hasattr(model, "reconstruct"):
            train = splits["train"]
            panels = {"data (train)": train.x[: side * columns], "reconstructed (train)": None, **panels, "reconstructed (test)": None}
            for split in (train, test):
                x, y = (part[: side * columns].to(device) for part in (split.x, split.y))
                with torch.no_grad():
                    panels[f"reconstructed ({split.split})"] = model.reconstruct(x, *((y,) if given else ())).cpu()
        panels[f"samples of {name}"] = model.sample(side * columns, **how).cpu()
        plots.side_by_side(path, panels, test.levels, columns)
    elif test.name in data.toys.TOYS:
        plots.plane(path, model, test, data.toys.TOYS[test.name].log_prob)
    else:
        plots.series(path, model, torch.cat([splits["train"].x[0], splits["valid"].x[0]]), test.x[0], splits["train"].y.item())


def say(model, data, k=0):
    """The model's figures, each on a line, if it has more than one; else its likelihood. k: how many draws, where draws make it better."""
    (say_figures if hasattr(model, "figures") else say_likelihood)(model, data, **{"k": k} if hasattr(model, "figures") else {})


NATS = ("elbo", "iwae", "reconstruction", "kl")  # figures that are; the others are in the unit that their name says


def say_figures(model, data, k):
    import math

    import torch

    from genmini.train import unit

    torch.manual_seed(0)  # some are draws: the same ones each time
    like, given = next(model.parameters()), bool(getattr(model, "classes", 0))
    sets = (data.x, data.y) if given else (data.x,)
    batches = zip(*(some.split(1000) for some in sets), strict=True)
    with torch.no_grad():
        parts = [model.figures(*(part.to(like.device) for part in batch), k=k) for batch in batches]
    widest = max(map(len, parts[0]))
    for name in parts[0]:
        values = torch.cat([part[name] for part in parts]).double()
        mean, error = values.mean().item(), (values.std() / math.sqrt(len(values))).item()
        if not math.isfinite(mean):
            raise FloatingPointError(f"the {name} of the {data.split} split of {data.name} is not finite: {mean}")
        line = f"{mean:.3f} +- {error:.3f}"
        if name.partition("-")[0] in NATS:
            line += f" {unit(model) if unit(model).startswith('nats') else 'nats'}"
            if "density" not in unit(model):  # a log-probability of levels is a length of code, less its sign
                bits = 1 / (math.prod(data.shape) * math.log(2))
                line += f", {abs(mean) * bits:.4f} +- {error * bits:.4f} bits/dim"
        print(f"{data.split:<9} {name:<{widest}} {line}")
    for name, value in (model.report() if hasattr(model, "report") else {}).items():  # of all that its figures were taken of
        print(f"{data.split:<9} {name:<{widest}} {value:.3f}")
    print(f"{'':<9} mean and standard error over {len(data)} images of {data.name}{', given the class' * given}")


def say_likelihood(model, data):
    import math

    from genmini.data import toys
    from genmini.train import evaluate

    nats, error = evaluate(model, data)
    if not math.isfinite(nats):
        raise FloatingPointError(f"the likelihood of the {data.split} split of {data.name} is not finite: {nats} nats")
    likelihood = f"{nats:.3f} +- {error:.3f} nats"
    what, count = ("images", len(data)) if data.levels else ("points", len(data)) if data.name in toys.TOYS else ("numbers", data.x.numel())
    if data.levels and hasattr(model, "log_prob"):  # of a density it would depend on the unit of x
        bits = 1 / (math.prod(data.shape) * math.log(2))
        likelihood += f", {nats * bits:.4f} +- {error * bits:.4f} bits/dim"
        likelihood += ", at most" * getattr(model, "bounds", False)  # its log_prob is a lower bound
    likelihood += ", given the class" * bool(getattr(model, "classes", 0))
    print(f"{data.split:<9} {likelihood}   (mean and standard error over {count} {what} of {data.name})")
    if data.name in toys.TOYS:
        truth = -toys.TOYS[data.name].log_prob(data.x, data.y if getattr(model, "classes", 0) else None).mean().item()
        print(f"{'truth':<9} {truth:.3f} nats   (of the density that these points were drawn from)")
