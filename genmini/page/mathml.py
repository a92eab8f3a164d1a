"""MathML of one line of mathematics in a small notation, a part of LaTeX's.

    mathml(r"y = x e^{s} + t")             <math display="block">...</math>

    _{...} ^{...}    below and above; of one sign without braces. Signs of SUMS have theirs under and over them
    \\frac{a}{b}  \\sqrt{a}  \\text{words}
    words of three or more letters         are upright: exp, softmax; so are ln, sg. Of two, as nd, each is a letter
    Greek letters and signs                stand for themselves: σ, ≤, ∈
    a space                                separates names, and is not shown; ~ is a wide one; \\{ is a brace

    used by: genmini/page/equations.py    test: tests/project/test_page.py
"""

import re
from html import escape

TWO = {"ln", "sg"}
SUMS = {"∑", "∏", "max", "min", "argmin"}  # their bounds stand below
OPERATORS = set("+-−±=<>≤≥≈·∘*/,;:∈∼←↦→≠")
FENCES = set("()[]|‖⌊⌋")
TOKEN = re.compile(r"\\text\{[^}]*\}|\\[a-z]+|\\[{}]|[0-9]+(?:\.[0-9]+)?|[A-Za-z]+|\S|\s+")


def mathml(text, display="block"):
    tokens = [token for token in TOKEN.findall(text) if not token.isspace()]
    parser = _Parser([part for token in tokens for part in ([token] if _whole(token) else token)])
    inside = parser.row(None)
    style = ' display="block"' if display == "block" else ""
    return f"<math{style}><mrow>{inside}</mrow></math>"


def _whole(token):
    return not token.isascii() or not token.isalpha() or len(token) > 2 or token in TWO


class _Parser:
    def __init__(self, tokens):
        self.tokens, self.next = tokens, 0

    def peek(self):
        return self.tokens[self.next] if self.next < len(self.tokens) else None

    def take(self):
        token = self.peek()
        if token is None:
            raise ValueError(f"the formula ends too early: {' '.join(self.tokens)}")
        self.next += 1
        return token

    def row(self, end):
        """All parts until this closing brace, or the end."""
        parts = []
        while self.peek() != end:
            parts.append(self.part())
        if end is not None:
            self.take()
        return "".join(parts)

    def part(self):
        """One sign or group, with what stands below and above it."""
        token = self.peek()
        base, below, above = self.base(), None, None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                below = self.argument()
            else:
                above = self.argument()
        under = token in SUMS
        if below is None and above is None:
            return base
        if below is None:
            return f"<{'mover' if under else 'msup'}>{base}{above}</{'mover' if under else 'msup'}>"
        if above is None:
            return f"<{'munder' if under else 'msub'}>{base}{below}</{'munder' if under else 'msub'}>"
        name = "munderover" if under else "msubsup"
        return f"<{name}>{base}{below}{above}</{name}>"

    def argument(self):
        """A group in braces as one element, or one sign."""
        if self.peek() == "{":
            self.take()
            return f"<mrow>{self.row('}')}</mrow>"
        return self.base()

    def base(self):
        token = self.take()
        if token == "{":
            return f"<mrow>{self.row('}')}</mrow>"
        if token == "\\frac":
            return f"<mfrac>{self.argument()}{self.argument()}</mfrac>"
        if token == "\\sqrt":
            return f"<msqrt>{self.argument()}</msqrt>"
        if token.startswith("\\text{"):
            return f"<mtext>{escape(token[6:-1])}</mtext>"
        if token in ("\\{", "\\}"):
            return f'<mo stretchy="false">{token[1]}</mo>'
        if token.startswith("\\"):
            raise ValueError(f"no such word in a formula: {token}")
        if token == "~":
            return '<mspace width="1.6em"></mspace>'
        if token in ("∑", "∏"):
            return f'<mo largeop="true" movablelimits="false">{token}</mo>'
        if token in FENCES:
            return f'<mo stretchy="false">{token}</mo>'
        if token == "'":
            return "<mo>′</mo>"
        if token in OPERATORS:
            return f"<mo>{escape({'-': '−'}.get(token, token))}</mo>"
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        # several letters are the name of a function, upright, and apart from what follows
        return f"<mi>{token}</mi>" + ("<mspace width=\"0.17em\"></mspace>" if self.function(token) else "")

    def function(self, token):
        return len(token) > 1 and token.isalpha() and self.peek() not in ("(", "_", "^", "[", None, "}", ",")
