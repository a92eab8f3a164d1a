"""MAF: a MADE of real numbers maps data to noise; several in front of each other make a flow.

Papamakarios, Pavlakou, Murray, "Masked Autoregressive Flow for Density Estimation", 2017; the masks are those of
Germain et al. (MADE, 2015), splines are those of Durkan, Bekasov, Murray and Papamakarios (neural spline flows, 2019).
genmini/models/_flow.py has log p(x) = log N(h(x); 0, I) + log |det dh/dx|; here is h:

    h = h_I o ... o h_1,   log |det dh/dx| = sum_i log |det h_i'|                           (1)
    z_d = c(x_d; w_d(x_<d)),   log |det h_i'| = sum_d log c'(x_d)                           (2)
    c(x; s, t) = (x - t) exp(-s)                                                            (3)
    s = b tanh(s~ / b)                                                                      (4)
    a = f(b + (W o M^W) x),   w = c + (V o M^V) a                                           (5)
    M^W_kd = [m(k) >= d],   M^V_dk = [d > m(k)]                                             (6)
    x_d = c^-1(z_d; w_d(x_<d)),   d = 1 ... D                                               (7)

Each h_i is an actnorm and a layer (2). By (3) a layer says that x_d is drawn from N(t_d, exp(s_d)^2), where t_d and s_d
are computed from the numbers before it; z is the noise of that draw, which the next layer models in turn. Its Jacobian
is triangular, so that the determinant is the product of the diagonal. A MADE computes all w_d at once (5): as in
genmini/models/made.py a hidden unit k has the degree m(k), the last input that it may see, and with more hidden layers
(5) is repeated. RealNVP bends half of the numbers by the other half; here every number is bent, by all before it.
`coupling="spline"` takes for c an increasing curve of several bins in the place of (3). A last layer of zeros makes all
c the identity at first.

One layer cannot tell all densities: the x that comes first has the density of a bent normal. So the order of the
numbers is reversed from one layer to the next ("natural"), or drawn for each ("random").

The density takes one pass. A sample is drawn one number after the other (7), as in kernels/made_sample.py, which draws
levels: here the walk is in PyTorch. A unit of degree m is final once x_1 ... x_m are known, and is computed once, so
the walk multiplies by each living weight once, as one pass does that leaves out the masked weights; D passes, the
naive way, do that D times. What grows is the number of calls, D a layer: with few samples these take the time. The
products of (5) are of dense W o M: with ops.masked_linear in their place a step of the recipes took 1.3 to 2.3 times as
long on a CPU (measured once, beside other work).

    rooms: kernels/affine_coupling.py, kernels/spline_coupling.py    test: tests/models/test_maf.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops
from genmini.models._flow import ActNorm, Flow
from genmini.models._levels import ordered
from genmini.settings import number, one_of, share, whole


class MAF(Flow):
    def __init__(self, shape, levels=None, layers=5, hidden=(128, 128), order="natural", coupling="affine", bound=2.0,
                 bins=8, reach=5.0, dropout=0.0, margin=0.01, device=None, dtype=None):
        """shape of one x; levels: None for a density, L for images of levels 0 ... L-1; hidden: units of each layer of
        a MADE; order "natural", "random" or a list of all numbers. bound: of s, for "affine"; coupling "spline": of so
        many bins from -reach to reach. margin: a of Flow's logit."""
        whole(hidden=hidden, layers=layers)
        one_of(("affine", "spline"), coupling=coupling)
        number(above=0, bound=bound)
        whole(2, 64, bins=bins)
        number(least=1e-3, most=1e3, reach=reach)
        share(dropout=dropout)
        if levels is not None:
            whole(2, levels=levels)
            number(above=0, below=0.5, margin=margin)
        super().__init__(shape, levels)
        self.margin, self.is_bound, self.f = margin, levels is not None, nn.ModuleList()
        for i in range(layers):
            with torch.device("cpu"):
                first = ordered(order, self.D)
            curve = Affine(bound) if coupling == "affine" else Spline(bins, reach)
            mine = first.flip(0) if i % 2 and order != "random" else first
            self.f += [ActNorm((self.D,)), Autoregressive(mine, hidden, curve, dropout)]
        self.place(device, dtype)

    def forward(self, x, y=None):
        """h: real x (N, *shape) -> z (N, D), log |det dh/dx| (N,)"""
        self.check_y(y, len(x))
        z, logdet = x.reshape(len(x), self.D), 0
        for f in self.f:
            z, part = f(z)
            logdet = logdet + part  # (1)
        return z, logdet

    @torch.no_grad()
    def inverse(self, z, y=None):
        """z (N, D) -> x (N, *shape) with h(x) = z, log |det dx/dz| (N,), both without a gradient"""
        self.check_y(y, len(z))
        logdet = 0
        for f in reversed(self.f):
            z, part = f.inverse(z)
            logdet = logdet + part
        return z.reshape(len(z), *self.shape), logdet


# ---- curves c: rows, how many numbers w has; forward(x, w) and inverse(z, w) give (N, D), logdet (N,) ----------------


class Affine:
    rows = 2

    def __init__(self, b):
        self.b = b

    def forward(self, x, w):
        return ops.affine_coupling_inverse(x, *self._s_t(w))  # (3)

    def inverse(self, z, w):
        return ops.affine_coupling(z, *self._s_t(w))

    def _s_t(self, w):
        s, t = w.unbind(2)
        return self.b * (s / self.b).tanh(), t  # (4)


class Spline:
    def __init__(self, bins, reach):
        self.rows, self.reach = 3 * bins - 1, reach

    def forward(self, x, w):
        return ops.spline_coupling(x, w, self.reach)

    def inverse(self, z, w):
        return ops.spline_coupling_inverse(z, w, self.reach)


# ---- a layer ---------------------------------------------------------------------------------------------------------


class Autoregressive(nn.Module):
    """h_i: every number by a curve that the numbers before it decide.   (N, D) -> (N, D), logdet (N,)

    order (D,): the number that comes first, second, ...
    """

    def __init__(self, order, hidden, curve, dropout):
        super().__init__()
        self.curve, self.D = curve, len(order)
        self.register_buffer("order", order)
        d = torch.arange(1, self.D + 1, device="cpu")
        even = (1 + torch.arange(H, device="cpu") * max(self.D - 1, 1) // H for H in hidden)  # m(k), ascending
        self.degrees = [d, *even]
        self.W = nn.ModuleList(nn.Linear(len(K), len(J)) for K, J in zip(self.degrees, self.degrees[1:], strict=False))
        self.V = nn.Linear(len(self.degrees[-1]), self.D * curve.rows)
        nn.init.zeros_(self.V.weight), nn.init.zeros_(self.V.bias)
        for i, (below, m) in enumerate(zip(self.degrees, [*self.degrees[1:], None], strict=True)):
            last = m is None
            mask = d.repeat_interleave(curve.rows)[:, None] > below if last else m[:, None] >= below  # (6)
            self.register_buffer(f"M{i}", mask.to(self.V.weight), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = x[:, self.order]
        z, logdet = self.curve.forward(x, self.w(x))  # (2)
        return z[:, self.order.argsort()], logdet

    def w(self, x):
        """The numbers of all curves, (N, D, rows), of x (N, D) in the layer's order"""
        a, (*M, last) = x, [getattr(self, f"M{i}") for i in range(len(self.degrees))]
        for W, live in zip(self.W, M, strict=True):
            a = self.dropout(F.relu(F.linear(a, live * W.weight, W.bias)))
        return F.linear(a, last * self.V.weight, self.V.bias).unflatten(1, (self.D, -1))  # (5)

    def inverse(self, z):
        """Step d computes, from below, the units that see x_1 ... x_d-1 and no more; then w_d; then x_d."""
        z, rows, logdet = z[:, self.order], self.curve.rows, 0
        x = torch.empty_like(z)
        a = [x, *(z.new_empty(len(z), W.out_features) for W in self.W)]
        ends = [torch.searchsorted(m, torch.arange(self.D, device="cpu"), right=True).tolist() for m in self.degrees]
        for d in range(self.D):  # of x, d are known; of a[i], ends[i][d]
            for i, W in enumerate(self.W):
                new, known = slice(ends[i + 1][d - 1] if d else 0, ends[i + 1][d]), ends[i][d]
                a[i + 1][:, new] = F.relu(F.linear(a[i][:, :known], W.weight[new, :known], W.bias[new]))
            of_d, known = slice(d * rows, (d + 1) * rows), ends[-1][d]
            w = F.linear(a[-1][:, :known], self.V.weight[of_d, :known], self.V.bias[of_d])
            x[:, d : d + 1], part = self.curve.inverse(z[:, d : d + 1], w[:, None])  # (7)
            logdet = logdet + part
        return x[:, self.order.argsort()], logdet


RECIPES = {
    **{
        toy: {
            "data": toy,
            "model": dict(layers=10, hidden=(64, 64)),
            "train": dict(steps=4000, batch=256, rate=5e-3, ema=0.99, every=500),
            "threads": 1,
        }
        for toy in ("moons", "spirals", "rings", "checkerboard", "gaussians")
    },
    **{
        f"{toy}-spline": {
            "data": toy,
            "model": dict(layers=4, hidden=(64, 64), coupling="spline", bins=bins, reach=reach),
            "train": dict(steps=steps, batch=256, rate=5e-3, ema=0.99, every=500),
            "threads": 1,
        }
        for toy, bins, reach, steps in (
            ("moons", 8, 5.0, 2000), ("spirals", 16, 3.0, 6000), ("rings", 16, 3.0, 3000),
            ("checkerboard", 32, 3.0, 5000), ("gaussians", 16, 3.0, 3000),
        )
    },
    "digits": {
        "data": "digits",
        "model": dict(layers=5, hidden=(256,), dropout=0.2),
        "train": dict(steps=2000, batch=64, rate=2e-3, shift=0.2),
        "threads": 1,
    },
    "digits-spline": {  # 86.3 nats of valid after 800 steps, 84.7 after 2400; affine 92.9 after 1200
        "data": "digits",
        "model": dict(layers=3, hidden=(256,), dropout=0.2, coupling="spline"),
        "train": dict(steps=1800, batch=64, rate=2e-3, shift=0.2),
        "threads": 1,
    },
}
