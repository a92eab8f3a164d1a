"""The translation unit of a user's .cu and of a call of its kernels. Python's standard library alone; no torch.

    unit.of(text, "Array<float> x(32), y(32); copy<<<1, 32>>>(x, y);", "my.cu")      C++ for g++ (csrc/own/call.h)
    unit.kernels(text)                              [Kernel(name="copy", template="", parameters="const float* x, ...")]

What C++ does not have is rewritten, in place, so that lines stay lines:

    kernel<<<grid, block>>>(x)            ::genmini::configured(kernel, grid, block)(x), or, where C++ is to find out
                                          which one is meant, ::genmini::deduced(GENMINI_CALL(kernel), grid, block)(x)
    extern __shared__ float s[];          float* s = dynamic_shared<float>();
    Array<float> x(32), y(32);            Array<float> x("x", 32), y("y", 32);
    __constant__ float c[5];              __constant__ float c[5]; static const ::genmini::Constant c_is_constant(c);

    used by: genmini/own_cu.py    test: tests/kernels/test_unit.py
"""

import re
from dataclasses import dataclass

QUIET = re.compile(r'//(?:\\\n|[^\n])*|/\*.*?(?:\*/|\Z)|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|'
                   r"'(?:\\.|[^'\\\n])+'", re.S)
NAME = re.compile(r"[A-Za-z_]\w*")
DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\(\s*\w+\s*\)\s*)?([\w:<>,\s]+?)\s*\b(\w+)"
                     r"\s*\[\s*\]\s*;")
INSIDE = r"(?:[^;{}()]|\((?:[^;{}()]|\([^;{}()]*\))*\))*"  # of brackets, where others may stand
BOUNDS = rf"(?:__launch_bounds__\s*\({INSIDE}\)\s*)?"
KERNEL = re.compile(rf"(?:template\s*<({INSIDE})>\s*)?(?:static\s+|inline\s+)*__global__\s+" + BOUNDS +
                    r"(?:static\s+)?void\s+" + BOUNDS + r"(\w+)\s*\(([^{};]*)\)\s*\{")


@dataclass(frozen=True)
class Kernel:
    name: str
    template: str  # its parameters, or ""
    parameters: str

    def __str__(self):
        return f"{self.name}{f'<{self.template}>' * bool(self.template)}({self.parameters})"


def plain(text):
    """The text with spaces in the place of comments and of what stands in quotes."""
    return QUIET.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def kernels(text):
    words = lambda part: " ".join((part or "").split())
    return [Kernel(name, words(template), words(parameters))
            for template, name, parameters in KERNEL.findall(plain(text))]


def has_main(text):
    return bool(re.search(r"^\s*(?:int|void|auto)\s+main\s*\(", plain(text), re.M))


def example(found):
    """A call of one of these kernels, with an array for each pointer, and float for each type that it is to be told."""
    kernel = next((kernel for kernel in found if not kernel.template), found[0])
    template = [part.partition("=")[0].split() for part in split(kernel.template)]
    types = {words[-1] for words in template if words[0] in ("class", "typename")}
    arrays, arguments = [], []
    for parameter in split(kernel.parameters):
        words = re.sub(r"\b(const|__restrict__|restrict|volatile)\b|=.*", " ", parameter).replace("*", " * ").split()
        *kind, name = ["float" if word in types else word for word in words] or ["n"]
        if "*" in kind:
            arrays.append(f"Array<{' '.join(word for word in kind if word != '*')}> {name}(1024);")
        arguments.append(name if "*" in kind else "1024")
    given = ", ".join("float" if words[-1] in types else "32" for words in template)
    return " ".join([*arrays, f"{kernel.name}{f'<{given}>' * bool(given)}<<<32, 32>>>({', '.join(arguments)});"])


def split(text):
    """The parts between commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{<") - (character in ")]}>")
        parts[-1] += character
        if character == "," and depth == 0:
            parts[-1] = parts[-1][:-1]
            parts.append("")
    return [part.strip() for part in parts if part.strip()]


# ---- rewriting -------------------------------------------------------------------------------------------------------


def of(text, call, shown, copy="my.cu"):
    """copy: the path that the compiler shall name for the text; shown: what an error here calls it"""
    start = "" if call else "(void)main();" if re.search(r"\bmain\s*\(\s*(void)?\s*\)", plain(text)) else (
        'static char name[] = "main", *names[] = {name, nullptr};\nmain(1, names);')
    copy = re.sub(r'(["\\\\])', r"\\\1", str(copy))
    found = kernels(text)
    return (f'#include "own/call.h"\n#line 1 "{copy}"\n{rewritten(text, shown, found)}\n'
            f'static void genmini_call() {{\n#line 1 "--call"\n{rewritten(call, "--call", found) or start}\n;}}\n')


def for_nvcc(text, call, copy="my.cu"):
    """The same for nvcc, which compiles its kernels alone."""
    text, call = (_edited(part, _named(plain(part))) for part in (text, call))
    return f'#include "own/call.h"\n#line 1 "{copy}"\n{text}\n#line 1 "--call"\nvoid genmini_call() {{\n{call}\n;}}\n'


def rewritten(text, shown, found=()):
    """found: the kernels that it may launch"""
    words = plain(text)
    return _edited(text, [*_launches(words, shown, found), *_dynamic(words), *_named(words), *_constants(words)])


def _edited(text, edits):
    """edits: (from, to, what stands there instead)"""
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _launches(words, shown, found):
    at = -1
    while (at := words.find("<<<", at + 1)) >= 0:
        start, end = _callee(words, at), _closing(words, at + 3)
        if start is None or end is None or not re.match(r"\s*\(", words[end + 3 :]):
            raise ValueError(f"{shown}:{words.count(chr(10), 0, at) + 1}: this launch is not whole; "
                             "it is kernel<<<grid, block>>>(arguments)")
        if _to_be_deduced(words[start:at], found):
            yield start, start, "::genmini::deduced(GENMINI_CALL("
            yield at, at + 3, "), "
        else:
            yield start, start, "::genmini::configured("
            yield at, at + 3, ", "
        yield end, end + 3, ")"


def _to_be_deduced(callee, found):
    """Whether several kernels have this name, or one with more template arguments than are written."""
    if callee.rstrip().endswith("]"):
        return False
    name, _, arguments = callee.partition("<")
    name, given = NAME.findall(name)[-1], split(arguments.strip().removesuffix(">"))
    same = [kernel for kernel in found if kernel.name == name]
    return len(same) > 1 or any(len(split(kernel.template)) > len(given) for kernel in same)


def _callee(words, at):
    """Where the name begins that ends before here, with its template arguments, namespaces and indices; None if none
    does."""
    at = len(words[:at].rstrip())
    while at and words[at - 1] == "]":  # of an array of pointers to kernels
        depth = 0
        while at:
            at -= 1
            depth += (words[at] in ")]}") - (words[at] in "([{")
            if not depth:
                break
        at = len(words[:at].rstrip())
    if at and words[at - 1] == ">":
        angles = others = 0
        while at:
            at -= 1
            others += (words[at] in ")]}") - (words[at] in "([{")
            if not others:  # inside of brackets < and > compare
                angles += (words[at] == ">") - (words[at] == "<")
            if not angles:
                break
        at = len(words[:at].rstrip())
    found = re.search(r"(?:::\s*)?(?:[A-Za-z_]\w*\s*::\s*)*[A-Za-z_]\w*\Z", words[:at])
    return found and found.start()


def _closing(words, at):
    """Where the >>> of a launch stands that begins here; None if there is none before the statement ends."""
    depth = 0
    while at < len(words):
        if depth == 0 and words.startswith(">>>", at):
            return at
        if depth == 0 and words[at] == ";":
            return None
        depth += (words[at] in "([{") - (words[at] in ")]}")
        at += 1


def _dynamic(words):
    for found in DYNAMIC.finditer(words):
        lines = "\n" * found[0].count("\n")
        here = (f"{found[1]}* {found[2]} = dynamic_shared<{found[1]}>();" if _in_a_function(words[: found.start()]) else
                f"static const ::genmini::Dynamic<{found[1]}> {found[2]};")
        yield *found.span(), here + lines


def _in_a_function(before):
    """Whether a brace is open that is not a namespace's."""
    opened = []
    for found in re.finditer(r"(\bnamespace\b[\w\s:]*|\bextern\s+)?\{|\}", before):
        if found[0] != "}":
            opened.append(found[1] is None)
        elif opened:
            opened.pop()
    return any(opened)


def _constants(words):
    for found in re.finditer(r"(\bextern\s+)?\b__constant__\b", words):
        end, depth = found.end(), 0
        while end < len(words) and (depth or words[end] != ";"):
            depth += (words[end] in "([{") - (words[end] in ")]}")
            end += 1
        names = [NAME.findall(re.split(r"[=\[{(]", part)[0])[-1:] for part in split(words[found.end() : end])]
        if not found[1]:
            new = "".join(f" static const ::genmini::Constant {name}_is_constant({name});" for name, in names)
            yield end + 1, end + 1, new


def _named(words):
    """Each variable of type Array gets its name."""
    for found in re.finditer(r"\bArray\s*<[^;{}()]*?>\s*(?=[A-Za-z_])", words):
        at = found.end()
        while (name := NAME.match(words, at)) and (bracket := re.compile(r"\s*([({])").match(words, name.end())):
            yield bracket.end(), bracket.end(), f'"{name[0]}", '
            depth, at = 1, bracket.end()
            while at < len(words) and depth:
                depth += (words[at] in "([{") - (words[at] in ")]}")
                at += 1
            if not (comma := re.compile(r"\s*,\s*").match(words, at)):
                break
            at = comma.end()
