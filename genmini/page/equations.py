"""The central equations of each room that is counted, in the notation of genmini/page/mathml.py.

They say what stands under Math in the room's docstring, with the same letters; a test compares these.

    used by: genmini/page/__init__.py    test: tests/project/test_page.py
"""

from .mathml import mathml

EQUATIONS = {
    "affine_coupling": [
        ("forward", r"y = x e^{s} + t ~ logdet_{n} = ∑_{d} s_{nd}"),
        ("inverse", r"x = (y − t) e^{−s} ~ logdet_{n} = −∑_{d} s_{nd}"),
        ("gradient", r"dx = dy e^{s} ~ ds = dy x e^{s} + dlogdet ~ dt = dy"),
    ],
    "spline_coupling": [
        ("knots", r"x_{k} = −B + ∑_{j<k} 2B (m + (1 − K m) a_{j}) ~ a = softmax(v)"),
        ("a bin", r"s = \frac{y_{k+1} − y_{k}}{x_{k+1} − x_{k}} ~ "
                  r"t = \frac{x − x_{k}}{x_{k+1} − x_{k}} ~ u = 1 − t"),
        ("forward", r"y = y_{k} + (y_{k+1} − y_{k}) \frac{s t^{2} + δ_{k} t u}"
                    r"{s (t^{2} + u^{2}) + (δ_{k} + δ_{k+1}) t u}"),
        ("log-determinant", r"logdet_{n} = ∑_{d} ln \frac{q s^{2}}{den^{2}} ~ "
                            r"q = δ_{k+1} t^{2} + 2 s t u + δ_{k} u^{2}"),
    ],
    "nearest_code": [
        ("the index, the lowest of equals", r"k_{n} = min ~ argmin_{k} ~ d_{nk}"),
        ("the distance", r"d_{nk} = ∑_{d} (z_{nd} − e_{kd})^{2}"),
    ],
    "quantize": [
        ("forward", r"z_{q} = z + sg[e − z] ~ loss_{n} = |sg[z_{n}] − e|^{2} + β |z_{n} − sg[e]|^{2}"),
        ("gradient of z", r"dz_{n} = dz_{q, n} + 2 β (z_{n} − e) dloss_{n}"),
        ("gradient of the codebook", r"de_{k} = ∑_{n: k_{n} = k} 2 (e_{k} − z_{n}) dloss_{n}"),
    ],
    "code_stats": [
        ("how many", r"count_{k} = |\{n: index_{n} = k\}|"),
        ("their sum", r"total_{k} = ∑_{n: index_{n} = k} z_{n}"),
    ],
    "nade": [
        ("the walk", r"a_{1} = c ~ h_{d} = σ(a_{d}) ~ l_{d} = b_{d} + V_{d} · h_{d} ~ a_{d+1} = a_{d} + W_{d} x_{d}"),
        ("the likelihood", r"log p(x) = ∑_{d} log σ(±l_{d}), ~ + \text{where} ~ x_{d} = 1"),
        ("gradient", r"da_{d} = dl_{d} V_{d} h_{d} (1 − h_{d}) ~ dW_{d} = x_{d} ∑_{d' > d} da_{d'}"),
    ],
    "nade_sample": [
        ("the walk", r"a_{1} = c ~ h_{d} = σ(a_{d}) ~ l_{d} = b_{d} + V_{d} · h_{d}"),
        ("a draw", r"x_{d} = [u_{d} ≥ σ(−l_{d})] ~ a_{d+1} = a_{d} + W_{d} x_{d}"),
    ],
    "made_sample": [
        ("a unit", r"z^{i}_{j} = max(0, b^{i}_{j} + ∑_{k} [m^{i}_{j} ≥ m^{i−1}_{k}] W^{i}_{jk} z^{i−1}_{k})"),
        ("the logits of a pixel", r"l_{d} = b_{d} + ∑_{k} [d > m^{I}_{k}] V_{dk} z^{I}_{k}"),
        ("a draw", r"x_{d} = [u_{d} ≥ σ(−l_{d})] ~ \text{of two levels}"),
    ],
    "pixelcnn_sample": [
        ("a layer", r"s_{a}(i, j) = b_{a} + ∑_{(r, di, dj, W)} W^{T} z_{r}(i + di, j + dj) + z_{residual}(i, j)"),
        ("its activation", r"z_{2a+2} = relu(s_{a}) ~ \text{or} ~ tanh(s_{a}[0::2]) σ(s_{a}[1::2])"),
        ("a draw", r"x_{i j c} = |\{l < L − 1: P(x_{i j c} ≤ l) ≤ u_{i j c}\}|"),
    ],
}


def of(room):
    """[(what it is, MathML)]"""
    return [(name, mathml(text)) for name, text in EQUATIONS.get(room, ())]
