"""Tests of the data `csv`: columns of files in many forms, splits in time, and files that are no series."""

import math

import numpy as np
import pytest
import torch
from check import command

from genmini import data, experiment
from genmini.data import series_file
from genmini.models.ar import AR

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
X = [float(v) for v in (3, -1.5, 2, 0.25, 7, 1e3, -4e-2, 5, 6, 8, 9, 10, 4)]


def write(text, name="a.csv"):
    with open(name, "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
    return name


def rows(form, x=X):
    return [form.format(t, v) for t, v in enumerate(x)]


FORMS = {
    "a number a line": ("\n".join(rows("{1}")), None),
    "without a last end": ("\n".join(rows("{1}")) + "\n\n\n", None),
    "a header": ("sold\n" + "\n".join(rows("{1}")), None),
    "its name": ("sold\n" + "\n".join(rows("{1}")), "sold"),
    "commas": ("day,sold\n" + "\n".join(rows("d{0},{1}")), "sold"),
    "by number": ("day,sold\n" + "\n".join(rows("d{0},{1}")), "2"),
    "no header": ("\n".join(rows("{0},{1},0")), "2"),
    "no header, and dates": ("\n".join(rows("2024-01-{0:02},{1}")), "2"),
    "semicolons": ("day;sold\r\n" + "\r\n".join(rows("{0};{1}")), "sold"),
    "decimal commas": ("day;sold\n" + "\n".join(rows("{0};{1}")).replace(".", ","), "sold"),
    "tabs": ("day\tsold, all\n" + "\n".join(rows("{0}\t {1} ")), "sold, all"),
    "quotes": ('"day, of all","sold"\n' + "\n".join(rows('"{0}","{1}"')), "sold"),
    "comments": ("# sold by day\n#\nsold\n" + "\n".join(rows("{1}\n# {0}")), None),
    "an empty line first": ("\n\nsold\n" + "\n".join(rows("{1}")), None),
    "old line ends": ("\r".join(rows("{1}")), None),
    "the mark of Excel": (b"\xef\xbb\xbf" + "année;vendu\n".encode() + "\n".join(rows("{0};{1}")).encode(), "vendu"),
    "its old letters": ("année;vendu\n".encode("latin-1") + "\n".join(rows("{1};{0}")).encode(), "année"),
    "plus signs": ("\n".join(rows("{1:+}")), None),
    "an empty column": ("day,sold,\n" + "\n".join(rows("{0},{1},")), "sold"),
}


@pytest.mark.parametrize("text, column", FORMS.values(), ids=FORMS)
def test_a_column_is_read(text, column):
    x = series_file.numbers(series_file.find(write(text)), column)
    assert x.dtype == np.float64 and x.tolist() == X


GOOD = "\n".join(rows("{0},{1}"))
MISTAKES = {
    "no file": (None, [], "there is no file a.csv: name the one that holds the series by --path"),
    "empty": ("", [], "a.csv is empty: a series is a number in each line"),
    "empty lines": ("\n\n \n# a\n", [], "a.csv is empty"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0", [], "a.csv is no text, or text of two bytes a character: byte 8 is 0"),
    "UTF-16": ("1\n2\n".encode("utf-16"), [], "text of two bytes a character"),
    "bytes that are no text": (bytes(range(128, 256)) * 9, [], r"line 1 of a.csv has no number, but '\x80"),
    "a long line": ("1," * 60_000, [], "line 1 of a.csv has 120000 characters, and at most 100000 are read of a line"),
    "several columns": ("day,sold\n" + GOOD, [], "a.csv holds 2 columns, 'day', 'sold': choose one by --column"),
    "several without names": (GOOD, [], "a.csv holds 2 columns, 1 to 2: choose one by --column"),
    "many columns": (",".join(f"c{i}" for i in range(99)) + "\n" + ",".join(99 * "1"), [],
                     "a.csv holds 99 columns, 'c0', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7', 'c8', 'c9', 'c10', 'c11' "
                     "and 87 others"),
    "no such column": ("day,sold\n" + GOOD, ["--column", "Solde"],
                       "a.csv has no column 'Solde': it holds 'day', 'sold'; the nearest is 'sold'"),
    "no such number": (GOOD, ["--column", "3"], "a.csv has no column '3': it holds 1 to 2\n"),
    "a number with 100 digits": (GOOD, ["--column", 100 * "1"], "a.csv has no column '111111"),
    "a name where there is none": (GOOD, ["--column", "sold"], "a.csv has no column 'sold': it holds 1 to 2\n"),
    "a name twice": ("a,a\n" + GOOD, ["--column", "a"],
                     "a.csv holds 2 columns 'a': choose one by its number, --column 1 or 2"),
    "a word": ("sold\n" + "\n".join(rows("{1}")) + "\nmany", [],
               "line 15 of a.csv has no number in the column 'sold', but 'many'"),
    "a column of words": ("day,sold\n" + "\n".join(rows("d{0},{1}")), ["--column", "day"],
                          "line 2 of a.csv has no number in the column 'day', but 'd0'"),
    "a gap": ("day,sold\n" + GOOD + "\n13,", ["--column", "sold"],
              "line 15 of a.csv has no number in the column 'sold': a series has no gaps"),
    "NA": ("\n".join([*rows("{1}"), "NA", "3"]), [], "line 14 of a.csv has no number, but 'NA': a series has no gaps"),
    "NaN": ("\n".join(["nan", *rows("{1}")]), [], "line 1 of a.csv has no number, but 'nan': a series has no gaps"),
    "infinity": ("\n".join([*rows("{1}"), "inf"]), [], "line 14 of a.csv has no number, but 'inf'"),
    "too large": ("\n".join([*rows("{1}"), "1e999"]), [], "line 14 of a.csv has '1e999', which is beyond 1e+100"),
    "an underscore": ("\n".join([*rows("{1}"), "1_000"]), [], "has no number, but '1_000'"),
    "other digits": ("\n".join([*rows("{1}"), "\u0663"]), [], "has no number, but "),
    "spaces": ("\n".join(rows("{0} {1}")), [], "line 1 of a.csv has no number, but '0 3.0'"),
    "an empty line": ("\n".join(rows("{1}\n")), [],
                      "line 2 of a.csv is empty, and line 3 is not: a series has no gaps"),
    "a short line": (GOOD + "\n3", ["--column", "2"], "line 14 of a.csv has 1 cells, and line 1 has 2"),
    "an open quote": ('"sold\n' + "\n".join(rows("{1}")), [],
                      "line 1 of a.csv is no line of CSV: unexpected end of data"),
    "two decimal marks": ("a;b\n1,5;1\n2.5;1\n", ["--column", "a"],
                          "numbers with a decimal comma and others with a point"),
    "thousands": ("\n".join(rows("{0};{1}")) + "\n3;1.234,5", ["--column", "2"],
                  "decimal comma and others with a point"),
    "too short": ("\n".join(rows("{1}", X[:11])), [], "a.csv holds a series of 11 numbers: at least 12 are needed"),
    "shorter than p": ("\n".join(rows("{1}")), [], "T > p + 1 = 10, got (1, 10): a smaller p needs fewer numbers"),
    "constant": (40 * "2\n", [], "not constant"),
    "colours in a name": ("\x1b[31mday,sold\n" + GOOD, [], r"'\x1b[31mday', 'sold'"),
}


@pytest.mark.parametrize("text, more, says", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(capsys, text, more, says):
    if text is not None:
        write(text)
    status, _, err = command(capsys, "train", "ar", "--data", "csv", "--path", "a.csv", *more)
    assert status == 2 and says in err and len(err.splitlines()) == 1 and len(err) < 500, err


def test_what_is_no_file_or_too_large_is_refused(capsys, monkeypatch, tmp_path):
    train = ("train", "ar", "--data", "csv")
    monkeypatch.setenv("GENMINI_DATA", str(tmp_path))
    for words, says in (([], "csv is read from a file of yours: name it by --path"),
                        (["--path", str(tmp_path)], "is a folder: --path names a file"),
                        (["--path", "/dev/zero"], "/dev/zero is no file"),
                        (["--path", "a\0b"], "holds a null byte")):
        status, _, err = command(capsys, *train, *words)
        assert status == 2 and says in err, err
    monkeypatch.setattr(series_file, "MOST_BYTES", 20)
    write("\n".join(rows("{1}")))
    assert "bytes, and at most 20 are read of a series" in command(capsys, *train, "--path", "a.csv")[2]
    for words, says in ((("train", "made", "--data", "csv", "--path", "a.csv"), "made has no recipe for 'csv'"),
                        (("train", "made", "--data", "digits", "--column", "a"),
                         "a column is chosen for the data `csv`"),
                        (("train", "ar", "--data", "csv", "--size", "3"), "csv has its own")):
        assert says in command(capsys, *words)[2]
    with pytest.raises(ValueError, match="column must be the name of a column, or its number as text, got 2"):
        data.load("csv", "train", "a.csv", column=2)


def test_the_splits_follow_one_another_in_time():
    x = np.arange(50.0)
    write("t,x\n" + "\n".join(f"{t},{v}" for t, v in enumerate(x)))
    train, valid, test = (data.load("csv", split, "a.csv", column="x") for split in data.SPLITS)
    assert [split.x[0].tolist() for split in (train, valid, test)] == [[*x[:35]], [*x[35:42]], [*x[42:]]]
    assert [split.y.tolist() for split in (train, valid, test)] == [[0], [35], [42]]
    assert train.levels is None and train.classes == 0 and train.count == 35 and data.kind("csv") == "a series"
    plan = experiment.plan("ar", "csv", column="x")
    assert plan.options == {"column": "x"} and plan.recipe_name == "series" and plan.settings["p"] == 9


def test_nothing_of_later_numbers_is_learnt():
    """Other valid and test numbers, in another unit, leave the fit as it is, and so its forecasts."""
    e = torch.randn(1, 120, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = e.cumsum(1)[0].numpy()
    fits = []
    for scale in (1, 1e6):
        write("\n".join(str(v * (scale if t >= 84 else 1)) for t, v in enumerate(x)))
        train = data.load("csv", "train", "a.csv")
        assert train.x.shape == (1, 84)
        fits.append(AR(train.shape, p=2).fit(train.x))
    assert all(torch.equal(a, b) for a, b in zip(fits[0].parameters(), fits[1].parameters(), strict=True))


def test_a_run_of_a_file_is_evaluated_sampled_forecast_and_resumed(capsys, tmp_path):
    e = torch.randn(1, 90, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = AR((90,), p=0).sample(1, e=e)[0]
    write("t;x\n" + "\n".join(f"{t};{v}" for t, v in enumerate(x.tolist())), "one.csv")
    train = ("train", "ar", "--data", "csv", "--path", "one.csv", "--column", "x", "--set", "p=1", "--out", "run")
    status, out, _ = command(capsys, *train)
    assert status == 0 and "63 train / 12 valid / 15 test" in out and (tmp_path / "run/samples.png").exists()
    fit = AR((63,), p=1).fit(x[None, :63])
    nats = -fit.log_prob_each(x[None, 75:]).mean().item()
    assert f"test      {nats:.3f} +- " in command(capsys, "eval", "run")[1] and math.isfinite(nats)
    assert command(capsys, "sample", "run", "-n", "2")[0] == 0
    assert "1 ahead" in command(capsys, "study", "forecast", "run", "--horizon", "3")[1]
    assert "there is nothing left to resume" in command(capsys, *train, "--resume")[1]
    (tmp_path / "one.csv").rename(tmp_path / "two.csv")
    assert "there is no file" in command(capsys, "eval", "run")[2]
    assert command(capsys, "eval", "run", "--path", "two.csv")[0] == 0
    with open("two.csv", "a") as file:
        file.write("\n90;1.5")
    assert "15 numbers with SHA-256" in command(capsys, "eval", "run", "--path", "two.csv")[2]
