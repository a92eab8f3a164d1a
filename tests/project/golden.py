"""Write golden.json: of every recipe the first 20 losses (of two players their sum), the loss of eight images and
samples of one seed; the features.

    python tests/project/golden.py            writes tests/project/golden.json
    python tests/project/golden.py nade       writes what this model's recipes give, and leaves the rest

A change that moves one of these numbers is meant to, and CHANGELOG.md says why. tests/project/test_golden.py compares.
"""

import contextlib
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from genmini import checkpoint, data, metrics, models, train
from genmini.metrics.features import SHIPPED

STORED = Path(__file__).with_suffix(".json")
STEPS = 20


def cases():
    """(model, recipe) of every recipe on embedded data that takes steps."""
    every = [(name, recipe) for name in models.MODELS if models.find(name).cannot("fit")
             for recipe in models.recipes(name)]
    return [case for case in every if data.family(models.recipes(case[0])[case[1]]["data"]) not in ("mnist", *data.OWN)]


def few(split, n):
    return replace(split, x=split.x[:n], y=split.y[:n], grey=None if split.grey is None else split.grey[:n])


@contextlib.contextmanager
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def values(name, recipe):
    """-> {"losses": 20 numbers, "valid": 8 numbers of eight images, "samples": counts of levels, digest, or means of
    points}"""
    settings = models.recipes(name)[recipe]
    options = dict(captions=models.find(name).captions)
    first, valid = (data.load(settings["data"], split, **options) for split in ("train", "valid"))
    with one_thread():
        torch.manual_seed(0)
        model = models.find(name).of_data(first, **settings["model"])
        few_valid = few(valid, 8)
        loop = {**settings["train"], "steps": STEPS, "every": 1, "batch": min(16, settings["train"].get("batch", 16)),
                "ema": 0.0}
        history = train.fit(model, first, few_valid, **loop, seed=0, progress=False)
        found = {"losses": [sum(row[part] for part in row if part.startswith("train")) for row in history.rows]}
        torch.manual_seed(0)
        found["valid"] = train.judge(model, few_valid.x, few_valid.y).tolist()
        torch.manual_seed(0)
        if model.given:
            found["samples"] = summary(model.restore(few_valid.x[:4]).round().to(torch.uint8))
        elif not model.cannot("sample"):
            found["samples"] = summary(model.sample(4))
    return found


def summary(x):
    """-> a few numbers of samples: of levels their sum and a digest, which any changed pixel changes; of points the
    points."""
    if x.is_floating_point():
        return x.flatten().tolist()
    x = x.to(torch.uint8).contiguous()
    return {"sum": int(x.sum()), "digest": hashlib.sha256(x.numpy().tobytes()).hexdigest()[:16]}


def features():
    """digits-v1's features of the test split: their digest, their mean, and their mean in float64"""
    with one_thread():
        test = data.load("digits", "test")
        f, _ = metrics.network("digits-v1")(test.x, test.levels)
        with torch.no_grad():
            exact = checkpoint.load(SHIPPED["digits-v1"]).double().features(test.x)
    return {"digest": hashlib.sha256(f.contiguous().numpy().tobytes()).hexdigest()[:16],
            "mean": f.double().mean(0).tolist(), "exact": exact.mean(0).tolist()}


if __name__ == "__main__":
    only = sys.argv[1:]
    stored = json.loads(STORED.read_text()) if only else {"digits-v1": features()}
    for name, recipe in (case for case in cases() if not only or case[0] in only):
        stored[f"{name} {recipe}"] = values(name, recipe)
        print(name, recipe, file=sys.stderr)
    STORED.write_text(json.dumps(stored, indent=1) + "\n")
