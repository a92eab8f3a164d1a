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
    "gaussian_kl": [
        ("a draw", r"z_{nd} = μ_{nd} + σ_{nd} ε_{nd} ~ σ = e^{l / 2}"),
        ("the divergence", r"kl_{n} = \frac{1}{2} ∑_{d} μ_{nd}^{2} + r(l_{nd}) ~ r(l) = e^{l} − 1 − l"),
        ("gradient", r"dμ = dz + dkl_{n} μ ~ dl = \frac{1}{2} (dz σ ε + dkl_{n} (e^{l} − 1)) ~ dε = dz σ"),
    ],
    "group_norm_silu": [
        ("normalised", r"z_{ncp} = (x_{ncp} − mean_{ng}) r_{ng} ~ r_{ng} = \frac{1}{\sqrt{var_{ng} + ε}}"),
        ("scaled and shifted", r"u_{ncp} = (1 + s_{nc}) (γ_{c} z_{ncp} + β_{c}) + b_{nc}"),
        ("forward", r"y_{ncp} = u_{ncp} σ(u_{ncp})"),
        ("gradient", r"du = dy σ(u) (1 + u (1 − σ(u))) ~ dx = r (w du − c_{1} − z c_{2})"),
    ],
    "info_nce": [
        ("logits", r"l_{nm} = scale a_{n} · b_{m}"),
        ("forward", r"loss_{n} = \frac{1}{2} (log ∑_{m} exp(l_{nm}) + log ∑_{m} exp(l_{mn})) − l_{nn}"),
        ("gradient", r"dl_{nm} = \frac{1}{2} (g_{n} P_{nm} + g_{m} Q_{nm}) − [n = m] g_{n}"),
    ],
    "masked_conv2d": [
        ("forward", r"y_{nohw} = b_{o} + ∑_{t<m} ∑_{c} x_{nc(h+u−p_{h})(w+v−p_{w})} K_{ocuv} + "
                    r"∑_{c} x_{nchw} K_{oc(m)} M_{oc}"),
        ("the mask of the centre", r"M_{oc} = [colour(o) > colour(c)] ~ \text{or} ~ [colour(o) ≥ colour(c)]"),
        ("gradient of the bias", r"db_{o} = ∑_{nhw} dy_{nohw}"),
    ],
    "masked_linear": [
        ("the mask", r"M_{jk} = [out_{j} ≥ in_{k}] ~ \text{of degrees}"),
        ("forward", r"y_{nj} = ∑_{k} x_{nk} W_{jk} M_{jk} + b_{j}"),
        ("gradient", r"dx_{nk} = ∑_{j} dy_{nj} W_{jk} M_{jk} ~ dW_{jk} = M_{jk} ∑_{n} dy_{nj} x_{nk}"),
    ],
    "softmax_nll": [
        ("forward", r"nll_{np} = (m_{np} − a_{ntp}) + log s_{np} ~ m_{np} = max_{l} ~ a_{nlp} ~ "
                    r"s_{np} = ∑_{l} exp(a_{nlp} − m_{np})"),
        ("online", r"m' = max(m, a_{l}) ~ s ← s exp(m − m') + exp(a_{l} − m')"),
        ("gradient", r"da_{nlp} = (q_{nlp} − [l = t]) dnll_{np} ~ "
                     r"q_{nlp} = exp((a_{nlp} − m_{np}) − log s_{np})"),
    ],
    "q_sample": [
        ("forward", r"x_{t} = α x_{0} + σ ε ~ v = α ε − σ x_{0}"),
        ("gradient", r"dx_{0} = α dx_{t} − σ dv ~ dε = σ dx_{t} + α dv"),
    ],
    "ddim_step": [
        ("the image", r"x_{0} = p x + q \text{out} ~ \text{out} = u + w (o − u)"),
        ("dynamic threshold", r"x_{0} = clamp(x_{0}, −s, s) / s ~ s_{n} = max(1, |x_{0, n}| ~ \text{in rank} ~ r)"),
        ("a step", r"x_{s} = α_{s} x_{0} + k (x − α_{t} x_{0}) + c \text{noise}"),
    ],
}


def of(room):
    """[(what it is, MathML)]"""
    return [(name, mathml(text)) for name, text in EQUATIONS.get(room, ())]
