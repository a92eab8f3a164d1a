"""The operators: differentiable functions on tensors. genmini.kernels chooses the backend that runs them."""

from genmini.kernels.affine_coupling import affine_coupling, affine_coupling_inverse
from genmini.kernels.code_stats import code_stats
from genmini.kernels.ddim_step import ddim_step
from genmini.kernels.gaussian_kl import gaussian_kl
from genmini.kernels.group_norm_silu import group_norm_silu
from genmini.kernels.info_nce import info_nce
from genmini.kernels.made_sample import made_sample
from genmini.kernels.masked_conv2d import masked_conv2d
from genmini.kernels.masked_linear import masked_linear
from genmini.kernels.nade import nade, nade_logits, nade_sample
from genmini.kernels.nearest_code import nearest_code
from genmini.kernels.pixelcnn_sample import pixelcnn_sample
from genmini.kernels.q_sample import q_sample
from genmini.kernels.quantize import quantize_step
from genmini.kernels.softmax_nll import softmax_nll
from genmini.kernels.spline_coupling import spline_coupling, spline_coupling_inverse

__all__ = [
    "affine_coupling", "affine_coupling_inverse", "code_stats", "ddim_step", "gaussian_kl", "group_norm_silu",
    "info_nce", "made_sample", "masked_conv2d", "masked_linear", "nade", "nade_logits", "nade_sample", "nearest_code",
    "pixelcnn_sample", "q_sample", "quantize", "quantize_step", "softmax_nll",
    "spline_coupling", "spline_coupling_inverse",
]


def quantize(z, codebook, beta=0.25):
    """The nearest codes z_q, their indices, and the loss of each vector.

    (..., D), (K, D) -> (..., D), (...) int64, (...)
    """
    index = nearest_code(z, codebook)
    z_q, loss = quantize_step(z, codebook, index, beta)
    return z_q, index, loss
