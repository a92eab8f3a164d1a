"""Which parts of a room's source a rung runs, and in which lines the parts of two rungs differ.

An item is a function, a struct or a constant at the outermost level of a file, in CUDA with the comment above it. A
rung runs an item if an access, a barrier, a shuffle or a product was counted in it.

    used by: genmini/page/__init__.py    test: tests/project/test_page.py
"""

import ast
import difflib
import itertools
import re

NEAR = 2  # lines that two rungs share, shown around a difference


def texts(each):
    """{file: its lines}: the files in which something was counted under any rung, the room's own first."""
    seen = {row.file for one in each for launch in one.launches for row in launch.rows}
    paths = dict.fromkeys(path for one in each for path in one.files)
    return {path.name: path.read_text().splitlines() for path in paths if path.name in seen}


def items_of(one, texts):
    """{file: [(first line, last line)]} of the items that a counting.Counted ran."""
    found = {}
    for file, lines in texts.items():
        counted = {row.line for launch in one.launches for row in launch.rows if row.file == file}
        of_file = items_in_python if file.endswith(".py") else items
        run = [(first, last) for first, last in of_file(lines) if any(first <= line <= last for line in counted)]
        if run:
            found[file] = run
    return found


def items(lines):
    """[(first line, last line)], counted from 1: runs of lines that end at an empty line outside all braces."""
    found, first, depth = [], None, 0
    for number, line in enumerate(lines, 1):
        if line.strip() and first is None:
            first = number
        code = line.partition("//")[0]
        depth += code.count("{") - code.count("}")
        if first is not None and depth <= 0 and (not line.strip() or line.startswith("}")):
            found.append((first, number - (not line.strip())))
            first = None
    return found if first is None else [*found, (first, len(lines))]


def comment(lines, kernel):
    """What stands above a kernel in a .cu behind //, as one text; "" where nothing does."""
    name = kernel.partition("<")[0].rpartition("::")[2]
    for first, last in items(lines):
        item = lines[first - 1 : last]
        if re.search(rf"__global__[^{{}};]*\b{re.escape(name)}\s*\(", "\n".join(item)):
            return " ".join(line.lstrip("/ ") for line in itertools.takewhile(lambda line: line.startswith("//"), item))
    return ""


def items_in_python(lines):
    """[(first line, last line)] of the statements at the outermost level, with their decorators."""
    decorators = lambda part: part.decorator_list if isinstance(part, ast.FunctionDef | ast.ClassDef) else []
    return [(min(each.lineno for each in [part, *decorators(part)]), part.end_lineno)
            for part in ast.parse("\n".join(lines)).body]


def difference(before, after, texts):
    """What the items of two rungs do not share, with a few lines around: [[sign, file, number, text]], where the sign
    is "-" (left out), "+" (new), " " (shared) or "." (a gap)."""
    a, b = (_lines(items, texts) for items in (before, after))
    found, last = [], 0
    matcher = difflib.SequenceMatcher(None, [line[-1] for line in a], [line[-1] for line in b], autojunk=False)
    for group in matcher.get_grouped_opcodes(NEAR):
        if group[0][1] > last or found:
            found.append([".", "", 0, ""])
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                found += [[" ", *line] for line in b[j1:j2]]
            else:
                found += [["-", *line] for line in a[i1:i2]] + [["+", *line] for line in b[j1:j2]]
        last = group[-1][2]
    return found


def _lines(items, texts):
    return [(file, number, texts[file][number - 1]) for file, ranges in items.items() for first, last in ranges
            for number in range(first, last + 1)]
