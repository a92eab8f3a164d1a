"""`genmini list`: the models with their recipes, the data sets, the studies, the shipped runs, the operators."""

import inspect

HELP = "the models with their recipes, the data sets, the studies, the shipped runs, the operators with their rungs"


def options(parser):
    pass


def run(arguments):
    from genmini import checkpoint, data, kernels, models, ops, studies  # noqa: F401  ops imports every room

    print("models       (genmini train MODEL --data D)")
    for name in models.MODELS:
        line = inspect.getmodule(models.find(name)).__doc__.splitlines()[0]
        print(f"  {name:<18} {line}\n  {'':<18} recipes: {', '.join(models.recipes(name))}")
    print("\ndata")
    for name, (what, _) in data.SETS.items():
        print(f"  {name:<18} {what}")
    print("\nstudies      (genmini study STUDY RUN)")
    for name, what in studies.STUDIES.items():
        print(f"  {name:<18} {what}")
    print("\nshipped runs (a RUN of sample, eval, score, study)")
    for name in checkpoint.shipped():
        saved = checkpoint.read(checkpoint.SHIPPED / name)
        print(f"  {name:<18} {saved['model']}, trained on {saved['data']}")
    print("\noperators    (genmini.ops; rungs of the GPU kernel, slowest first)")
    for name, room in kernels.ROOMS.items():
        native = f"; cpu: {room.cpu}" if room.cpu else ""
        print(f"  {name:<18} {room.language}: {' < '.join(kernels.rungs(name))}{native}")
