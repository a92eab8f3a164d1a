"""How did the samples of a training get better? Its pictures along the steps, one after another: a GIF.

A training keeps small pictures in RUN/progress, at most a hundred, each step at least a tenth more than the one before,
so that what changes fast is seen often. They are of the same noise. The last one is RUN/samples.png, of the weights
that are kept.
"""

import io
from pathlib import Path

from genmini import files
from genmini.folder import pictures_of
from genmini.studies._run import Misfit
from genmini.studies._study import Study

WIDTH, STRIP = 960, 24  # pixels: of a frame at most, and of the line above it that names the step
MILLISECONDS, LAST = 350, 2500


def pictures(run):
    """The pictures of a run in the order in which they were drawn, [(what they are of, path)]"""
    stages = ["", *run.model.stages]
    kept = sorted((stages.index(stage), step, path) for path, (stage, step) in pictures_of(run.folder).items()
                  if stage in stages and path.suffix == ".png")
    named = [(f"step {step}" + f" of {stages[i]}" * bool(stages[i]), path) for i, step, path in kept]
    end = Path(run.folder) / "samples.png"
    return named + [("at the end", end)] * end.is_file()


def study(run, path):
    named = pictures(run)
    if not named:
        raise Misfit(f"{run.folder} does not fit: it keeps no picture of its training")
    frames = [frame(picture, name) for name, picture in named]
    width, height = (max(sizes) for sizes in zip(*(each.size for each in frames), strict=True))
    first, *rest = (whole(each, width, height) for each in frames)
    content = io.BytesIO()
    first.save(content, format="GIF", save_all=True, append_images=rest, loop=0,
               duration=[MILLISECONDS] * len(rest) + [LAST])
    files.write(path, content.getvalue())
    return f"{len(named)} picture{'s' * (len(named) > 1)}: {', '.join(name for name, _ in named)}"


def frame(path, name):
    """The picture, at most WIDTH wide, below a line that names it"""
    from PIL import Image, ImageDraw

    with Image.open(path) as picture:
        picture = picture.convert("RGB")
    width = min(WIDTH, picture.width)
    picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    framed = Image.new("RGB", (width, picture.height + STRIP), "white")
    framed.paste(picture, (0, STRIP))
    ImageDraw.Draw(framed).text((8, 4), name, fill="black", font_size=16)
    return framed


def whole(framed, width, height):
    """The frame in the upper left of a white one of this size: those of a GIF have one size"""
    from PIL import Image

    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(framed)
    return canvas.quantize(128)


STUDY = Study(study, needs=(), suffix=".gif")
