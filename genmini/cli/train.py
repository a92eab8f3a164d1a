"""`genmini train`: train a model by a recipe, or resume its training."""

import sys
from pathlib import Path

from . import _options, _output

HELP = "train a model; write the best weights, the metrics and a picture of samples beside data"


def options(parser):
    parser.add_argument("model", metavar="MODEL", help="a model of `genmini list`, as made")
    parser.add_argument("--data", required=True, metavar="D", help="a data set of `genmini list`, as digits")
    _options.of_images(parser)
    parser.add_argument("--column", metavar="NAME",
                        help="with --data csv: the column to learn, by name or by number (default: the only one)")
    parser.add_argument("--recipe", metavar="R",
                        help="a recipe of the model (default: its first for the data or another version of it; "
                             "`mnist` for your own images, `colour` with --colour)")
    parser.add_argument("--steps", type=_options.positive, metavar="N", help="instead of the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="any setting of the recipe; may be repeated")
    _options.seed(parser)
    parser.add_argument("--out", metavar="DIR",
                        help="the run's folder (default: runs/MODEL-D, numbered if that is taken)")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true",
                          help="continue the run in --out to the same bits: repeat the command that began it")
    existing.add_argument("--overwrite", action="store_true", help="replace the run that is in --out")
    parser.add_argument("--tensorboard", action="store_true",
                        help="the metrics for TensorBoard, too (pip install .[tensorboard])")
    _options.where_data_lies(parser)
    _options.where_it_runs(parser)


def run(arguments):
    from genmini import checkpoint, data, experiment, info, watch
    from genmini.folder import new as new_folder
    from genmini.loop import short

    plan = experiment.plan(arguments.model, arguments.data, arguments.recipe, arguments.set, arguments.steps,
                           arguments.seed, arguments.size, arguments.colour, arguments.scenes, arguments.column)
    if arguments.tensorboard and plan.at_once:
        raise ValueError(f"{plan.model} is fitted at once: it takes no --tensorboard, leave it out")
    folder = _named_folder(arguments)
    saved = checkpoint.read(folder) if arguments.resume else {}
    device = _options.device(arguments, saved.get("threads") or plan.threads)
    splits = experiment.splits(plan, arguments.data_dir)
    if saved:
        experiment.check_resume(folder, saved, plan, device, splits)
    model = experiment.build(plan, splits["train"], device)
    if plan.data != arguments.data:
        print(f"{arguments.data} is taken as {plan.data} ({data.SETS[plan.data][0]})")
    sizes = " / ".join(f"{split.count} {name}" for name, split in splits.items())
    loops = plan.loops[: max(1, len(model.stages))]
    how = "fitted at once" if plan.at_once else " + ".join(str(loop["steps"]) for loop in loops) + " steps"
    print(f"{plan.model} on {plan.data}: {sizes}, {model.parameter_count:,} parameters, {how} on {device}")

    if saved and experiment.is_finished(saved):
        print(f"finished  {folder}: there is nothing left to resume")
        model = checkpoint.load(folder, device)
        kept = f"the weights of step {saved['step']} are in {folder}"
    else:
        if saved:
            print(f"resumed   {folder} at {experiment.resumes_at(saved)}")
            if saved.get("versions") != info.versions():
                print(f"note      begun with {saved.get('versions')}: other versions, perhaps other bits")
        if arguments.tensorboard:
            watch.check_tensorboard()
        folder = folder or new_folder(f"{arguments.model}-{arguments.data}")
        seen = None if plan.at_once else watch.Watch(folder, splits, plan.seed, arguments.tensorboard, bool(saved))
        history = experiment.train(plan, model, splits, folder, seen, bool(saved), arguments.overwrite)
        kept = f"the weights of step {history.step}, valid {short(history.valid)} {model.unit}, are in {folder}"
        if history.stopped == "interrupted":
            where = experiment.resumes_at(checkpoint.read(folder))
            print(f"genmini: interrupted; {kept}; --resume continues from {where}", file=sys.stderr)
            return 130
        if history.rows and "warning" in history.rows[-1]:
            print(f"warning   {history.rows[-1]['warning']}")
        if history.stopped == "early":
            print(f"stopped   at step {history.last}: {loops[-1]['patience']} evaluations without an improvement")
    print(f"saved     {kept}")
    with experiment.what_is_kept(folder):
        _output.figures(model, splits["test"])
        if not watch.missing(model):
            watch.picture(watch.place(folder, model), model, splits)
    print(f"{'texts' if model.of_text else 'picture':<9} {watch.missing(model) or watch.place(folder, model)}")
    if model.sample_note and not model.classes:  # of classes, the picture shows each
        print(f"note      {model.sample_note}")


def _named_folder(arguments):
    """The folder of --out, if this training may write there; None without --out."""
    from genmini import files
    from genmini.folder import check_free

    if arguments.out:
        files.check_name(arguments.out)
        folder = Path(arguments.out)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out takes a folder, and {folder} is a file")
        if not arguments.overwrite and not arguments.resume:
            check_free(folder)
        return folder
    if arguments.resume:
        raise ValueError("--resume continues the run in --out, and none is given: add --out RUN")
    return None
