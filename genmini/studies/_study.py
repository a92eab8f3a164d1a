"""What a study is: the one question of a module of genmini/studies, which ends in `STUDY = Study(study, needs=...)`."""

from collections.abc import Callable
from dataclasses import dataclass


def lacks_images(model):
    """Why a study of images does not fit; "" if it does."""
    return "" if model.levels else "it draws points, and a picture takes images"


@dataclass(frozen=True)
class Study:
    make: Callable  # (run, path) -> what the picture shows, in a line: it draws the picture in path
    needs: tuple  # the methods of `Model` that it calls
    misfit: Callable = lambda model: ""  # model -> why it does not fit though it has them; "" if it fits
    together: bool = False  # true: `make` takes all runs at once
    alone: bool = False  # true: of no run; `make` takes the path alone
    trains: str = ""  # the setting in which runs of its own differ, of a study that trains them
    plans: Callable | None = None  # of such a study: (model, data, values of the setting, ...) -> {value: Plan}
    options: tuple = ()  # the keywords that `make` takes, each an option of the command line
    suffix: str = ".png"  # of the file that `make` writes
    of_text: bool | None = False  # true: of models of text alone; false: of all others; None: of all

    def lacks(self, model):
        """What a model, or its class, lacks for this study, in words; "" if nothing."""
        if self.of_text not in (None, model.of_text):
            return "its samples are texts, and no images" if model.of_text else "its samples are no texts"
        return "; ".join(dict.fromkeys(model.cannot(need) for need in self.needs if model.cannot(need)))
