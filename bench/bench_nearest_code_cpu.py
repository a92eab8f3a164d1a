"""Time the native nearest-code search, FAISS, torch.cdist and scikit-learn.

FAISS has its best settings: its BLAS is told to use AVX-512 (on AMD's processors it would take AVX2), and never to take
the slow direct path for few queries. Every call starts from the plain tensors, packing included. `error` is the
fraction of rows whose code is not the nearest: ours is compared with the definition in double on some rows, the others
with ours. The ratio is FAISS's time over the candidate's: above 1, the candidate is faster.

    room: kernels/nearest_code.py
"""

import importlib

import measure  # before anything loads FAISS
import torch

from genmini import kernels, ops

CASES = [(16384, 1024, 64), (65536, 1024, 64), (16384, 8192, 256), (4096, 512, 16)]  # N, K, D: where the goal is set
ODD = [(4096, 64, 256), (4096, 512, 8), (1000, 100, 7), (64, 512, 64), (1, 1024, 64),
       (65536, 64, 4), (1024, 512, 512), (256, 16384, 4), (16, 16384, 64), (4, 1024, 64), (1, 16384, 512),
       (64, 16384, 512)]


def definition(z, e):
    """The index by the definition, in double, one addition at a time."""
    z, e = z.double(), e.double()
    d = torch.zeros(len(z), len(e), dtype=torch.float64)
    for i in range(z.shape[1]):
        d += (z[:, i, None] - e[None, :, i]).square()
    return d.argmin(1)


def gaussian(N, K, D):
    return torch.randn(N, D), torch.randn(K, D)


def trained(N, K, D):
    """Rows around codes, as after training."""
    e = torch.randn(K, D)
    return e[torch.randint(K, (N,))] + 0.5 * torch.randn(N, D), e


def candidates(z, e):
    def ours():
        with kernels.use("cpu"):
            return ops.nearest_code(z, e)

    # without the front door
    alone = importlib.import_module("genmini.kernels.nearest_code").launch
    found = {"genmini cpu": ours, "genmini cpu, kernel": lambda: alone("cpu", None, z, e),
             "torch.cdist": lambda: torch.cdist(z, e).argmin(1)}
    try:
        import faiss

        faiss.cvar.distance_compute_blas_threshold = 1
        faiss.omp_set_num_threads(torch.get_num_threads())
        found["faiss"] = lambda: torch.from_numpy(faiss.knn(z.numpy(), e.numpy(), 1)[1][:, 0])
    except ImportError:
        print("faiss is not installed: pip install faiss-cpu")
    try:
        from sklearn.metrics import pairwise_distances_argmin
        from threadpoolctl import ThreadpoolController

        pools = ThreadpoolController()  # to look for them takes a millisecond

        def sklearn():
            with pools.limit(limits=torch.get_num_threads()):
                return torch.from_numpy(pairwise_distances_argmin(z.numpy(), e.numpy()))

        found["sklearn"] = sklearn
    except ImportError:
        print("scikit-learn is not installed: pip install scikit-learn")
    return found


def rows():
    if measure.GPU:
        return  # measure.times asks the GPU's clock
    for data, cases in ((gaussian, CASES + ODD), (trained, CASES[:1])):
        for N, K, D in cases:
            yield from case(data, N, K, D)


def case(data, N, K, D):
    torch.manual_seed(0)
    z, e = data(N, K, D)
    functions = candidates(z, e)
    index = functions["genmini cpu"]()
    some = torch.randperm(N)[: max(1, 2**24 // (K * D))]
    assert (index[some] == definition(z[some], e)).all(), "a wrong kernel is not timed"
    errors = {name: (function() != index).double().mean().item() for name, function in functions.items()}
    took = measure.times(functions, seconds=1.0 if N * K * D < 2**32 else 8.0)
    beside = took.get("faiss", took["torch.cdist"])[0]
    for name, time in took.items():
        yield measure.row("nearest_code_cpu", f"N={N} K={K} D={D} {data.__name__}", "index", name, time,
                          bytes=4 * (N + K) * D + 8 * N, operations=2 * N * K * D, error=errors[name], beside=beside)
