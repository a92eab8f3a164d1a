"""What kind of data a name stands for, and what may be chosen of each: size, colour, captions, scenes, a column.

    used by: genmini/data/__init__.py    test: tests/project/test_data_images.py
"""

from . import captions_file, images, shapes, toys

SIZE = 32  # of `images` and `shapes`, if no other is chosen


def kind(name):
    if name in toys.TOYS:
        return "points of the plane"
    return {"series": "a series", "csv": "a series", "captions": "text"}.get(name, "images")


def family(name):
    """The name without its binary version."""
    return name.partition("-")[0]


def in_colour(name, colour=False):
    """Whether the images have 3 channels. colour: what was chosen for `images`."""
    return colour or family(name) == "shapes" and not name.startswith("shapes-grey")


def chosen(name, size=None, colour=False, captions=0, scenes=0, column=None):
    """What `load` takes beside name, split and folder, checked; of a name that is known."""
    if captions or scenes or column is not None:
        its = chosen(name, size, colour)
        its |= _captions(name, captions) if captions else {}
        its |= _scenes(name, scenes) if scenes else {}
        return its | (_column(name, column) if column is not None else {})
    if family(name) not in ("images", "shapes"):
        if size is not None or colour:
            raise ValueError("size and colour are chosen for the data `images`, a size for `shapes`, "
                             f"and {name} has its own")
        return {}
    if colour and not (name == "images" or in_colour(name)):
        raise ValueError(f"{name} is made of grey images: leave colour out, or take the data `{family(name)}`")
    if family(name) == "shapes":
        shapes.check_side(SIZE if size is None else size)
        return dict(size=SIZE if size is None else size)
    images.check_size(SIZE if size is None else size)
    return dict(size=SIZE if size is None else size, colour=colour)


def _captions(name, captions):
    if family(name) not in ("images", "shapes"):
        raise ValueError(f"captions are chosen for the data `shapes` and `images`, and {name} has none")
    if type(captions) is not int or not 0 < captions <= captions_file.MOST_CAPTIONS:
        raise ValueError("captions must be how many of an image there are, 1 to "
                         f"{captions_file.MOST_CAPTIONS}, got {captions!r}")
    return dict(captions=captions)


def _scenes(name, scenes):
    if family(name) != "shapes":
        raise ValueError(f"a number of scenes is chosen for the data `shapes`, and {name} has none")
    if type(scenes) is not int or not 0 < scenes <= shapes.MOST:
        raise ValueError(f"scenes must be how many the train split has, 1 to {shapes.MOST}, got {scenes!r}")
    return dict(scenes=scenes)


def _column(name, column):
    if name != "csv":
        raise ValueError(f"a column is chosen for the data `csv`, and {name} has none")
    if not isinstance(column, str):
        raise ValueError(f"column must be the name of a column, or its number as text, got {column!r}")
    return dict(column=column)
