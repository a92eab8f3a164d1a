"""A series of the user's own: one column of numbers of a text file, in the order of time.

    day,sold,price                     train ar --data csv --path shop.csv --column sold
    2024-01-02,12,3.5                  columns are called by their names, or by their numbers from 1
    2024-01-03,9,3.5

A tab, a semicolon or a comma stands between columns: the first of these three that the first line holds. In files with
semicolons a number may have a decimal comma. The first line is a header if one of its cells is no number where a later
line has one. Lines that begin with # are left out. A file of several columns needs the choice of one.

Every line of the column holds a finite number. All else ends the reading in an error that names the line and what stood
there: an empty cell, NA or NaN (a series has no gaps), a word, a line of more or fewer cells; so do files that are
empty, no text, or too large.

The split is one in time: the last sixth is for test, the last sixth of what comes before it for valid, and the first
numbers are for train.

    used by: genmini/data/__init__.py    test: tests/project/test_data_csv.py
"""

import csv
import difflib
import re
import stat
from pathlib import Path

import numpy as np

from genmini import files

from .idx import rows_of

MOST_BYTES = 2**25  # of a file
MOST_LINE = 100_000  # characters of a line
MOST = 1e100  # of a number: its square is finite, too
LEAST = 12  # numbers of a series: 9 for train, 1 for valid, 2 for test
HEADER = 100  # lines after the first that tell whether it is a header
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
GAPS = {"", "na", "n/a", "nan", "null", "none", "nil", "-", "--", "?", "."}


def read(split, path, column=None):
    """-> the numbers (T,) float64 of the split, how many come before the first of them"""
    x = numbers(find(path), column)
    if len(x) < LEAST:
        raise ValueError(f"{path} holds a series of {len(x)} numbers: at least {LEAST} are needed for train, valid and "
                         "test")
    rows = rows_of(split, len(x), False, path)
    return x[rows].copy(), rows.start


def find(path):
    """The file, which is there."""
    if path is None:
        raise ValueError("csv is read from a file of yours: name it by --path")
    files.check_name(path)
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no file {path}: name the one that holds the series by --path")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'no file'}: --path names a file")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"{path} has {status.st_size} bytes, and at most {MOST_BYTES} are read of a series")
    return path


def numbers(path, column=None):
    """-> a column of the file, (T,) float64"""
    rows, comma = _rows(path)
    first = rows[0][1]
    is_name = lambda j: (not _fits(first[j], comma) and first[j].lower() not in GAPS
                         and any(_fits(cells[j], comma) for _, cells in rows[1 : HEADER + 1]))
    names = first if any(map(is_name, range(len(first)))) else None
    j = _chosen(path, names, len(first), column)
    called = f" in the column {_shown(names[j])}" if names else f" in the column {j + 1}" if len(first) > 1 else ""
    column = [(n, cells[j]) for n, cells in (rows[1:] if names else rows)]
    if comma and any("," in cell for _, cell in column) and any("." in cell for _, cell in column):
        raise ValueError(f"{path} has numbers with a decimal comma and others with a point{called}: "
                         "write all of them in one way")
    return np.array([_value(cell, comma, f"line {n} of {path}", called) for n, cell in column])


def _rows(path):
    """-> [(number of the line, its cells)], whether numbers may have a decimal comma"""
    rows, empty, separator = [], None, None
    for n, line in enumerate(re.split("\r\n|\r|\n", _text(path)), 1):
        where = f"line {n} of {path}"
        if len(line) > MOST_LINE:
            raise ValueError(f"{where} has {len(line)} characters, and at most {MOST_LINE} are read of a line")
        if line.startswith("#"):
            continue
        if not line.strip():
            empty = empty or (n if rows else None)
            continue
        if empty:
            raise ValueError(f"line {empty} of {path} is empty, and line {n} is not: a series has no gaps")
        separator = separator or next((mark for mark in "\t;," if mark in line), ",")
        cells = _cells(line, separator, where)
        if rows and len(cells) != len(rows[0][1]):
            raise ValueError(f"{where} has {len(cells)} cells, and line {rows[0][0]} has {len(rows[0][1])}")
        rows.append((n, cells))
    if not rows:
        raise ValueError(f"{path} is empty: a series is a number in each line")
    return rows, separator == ";"


def _text(path):
    content = path.read_bytes()
    if b"\0" in content:
        raise ValueError(f"{path} is no text, or text of two bytes a character: byte {content.index(0)} is 0; "
                         "save it as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # names of columns may have accents


def _cells(line, separator, where):
    try:
        (cells,) = csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise ValueError(f"{where} is no line of CSV: {error}; it begins with {_shown(line)}") from None
    return [cell.strip() for cell in cells]


def _chosen(path, names, count, column):
    """The column that is called so, counted from 0."""
    known = _listed(names) if names else f"1 to {count}"
    if column is None:
        if count > 1:
            raise ValueError(f"{path} holds {count} columns, {known}: choose one by --column")
        return 0
    named = [j for j, name in enumerate(names or ()) if name == column]
    if len(named) > 1:
        raise ValueError(f"{path} holds {len(named)} columns {_shown(column)}: choose one by its number, "
                         f"--column {named[0] + 1} or {named[1] + 1}")
    if named:
        return named[0]
    if column.isascii() and column.isdecimal() and 1 <= int(column[:9]) <= count:
        return int(column) - 1
    near = f"; the nearest is {_shown(difflib.get_close_matches(column, names, 1, 0)[0])}" if names else ""
    raise ValueError(f"{path} has no column {_shown(column)}: it holds {known}{near}")


def _fits(cell, comma):
    return bool(NUMBER.fullmatch(cell.replace(",", ".") if comma else cell))


def _value(cell, comma, where, called):
    if cell.lower() in GAPS:
        raise ValueError(f"{where} has no number{called}" + f", but {_shown(cell)}" * bool(cell)
                         + ": a series has no gaps, so fill it, or keep what comes before or after it")
    if not _fits(cell, comma):
        raise ValueError(f"{where} has no number{called}, but {_shown(cell)}")
    value = float(cell.replace(",", ".") if comma else cell)
    if abs(value) > MOST:
        raise ValueError(f"{where} has {_shown(cell)}{called}, which is beyond {MOST:g}")
    return value


def _listed(names):
    shown = ", ".join(map(_shown, names[:12]))
    return f"{shown} and {len(names) - 12} others" if len(names) > 12 else shown


def _shown(text):
    return repr(text if len(text) <= 30 else f"{text[:27]}...")
