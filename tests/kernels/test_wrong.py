"""Plant one-line mistakes in the sources, rebuild what they touch, and require that the room's tests fail.

Mistakes in the sources of a room's kernels must also leave the tests of its `reference` green. Together this shows that
`emulated` runs these sources and `reference` does not.
"""

import re

import pytest
from planting import ROOT, Wrong, build, copied, plant, planted, watching

from genmini import kernels

SOURCES = {room.source for room in kernels.ROOMS.values()}
pytestmark = pytest.mark.mutants
AFFINE, ROOM = "csrc/affine_coupling.cu", "kernels/affine_coupling.py"
AFFINE_CPU = "csrc/affine_coupling.cpp"
SEARCH, PACK, STEP, STATS = "csrc/nearest_code.cu", "csrc/nearest_code_pack.h", "csrc/quantize.cu", "csrc/code_stats.cu"
SEGMENTS, SIEVE, LANES = "csrc/segments.h", "csrc/nearest_code_sieve.h", "csrc/lanes.h"
CPU, SCREEN, DEFINITION = "csrc/nearest_code.cpp", "csrc/cpu/nearest_code_screen.h", "csrc/cpu/nearest_code_problem.h"
BOOK, INTEGERS = "csrc/cpu/nearest_code_book.h", "csrc/cpu/integers.h"
NARROW, FEW = "csrc/cpu/nearest_code_narrow.h", "csrc/cpu/nearest_code_few.h"
THREADS, VECTORS, NUMBERS = "csrc/cpu/threads.h", "csrc/cpu/vectors.h", "csrc/cpu/numbers.h"
DIVIDE, NADE, NADE_CPU = "csrc/cpu/divide.h", "csrc/nade.cu", "csrc/nade.cpp"
DRAW, DRAW_CPU, DRAWN = "csrc/made_sample.cu", "csrc/made_sample.cpp", "csrc/draw.h"
PIXELS, PIXELS_BOTH, PIXELS_CPU = "csrc/pixelcnn_sample.cu", "csrc/pixelcnn_sample.h", "csrc/pixelcnn_sample.cpp"
LINEAR, SPANS, DEGREES = "kernels/masked_linear.py", "kernels/_spans.py", "kernels/_degrees.py"
CONV, NLL = "kernels/masked_conv2d.py", "kernels/softmax_nll.py"
TAPS, PIXELS_ROOM = "kernels/_live_taps.py", "kernels/pixelcnn_sample.py"
STEP_CPU, BY_CODE, ROW_SUMS = "csrc/quantize.cpp", "csrc/cpu/rows_of_codes.h", "csrc/cpu/row_sums.h"
STATS_CPU = "csrc/code_stats.cpp"
KL, KL_CPU = "kernels/gaussian_kl.py", "csrc/gaussian_kl.cpp"
LINEAR_CPU, CONV_CPU = "kernels/_masked_linear_cpu.py", "kernels/_masked_conv2d_cpu.py"
SORTED_CPU = "kernels/_masked_linear_sorted_cpu.py"
NOISE, NOISE_CPU = "kernels/_noise.py", "csrc/cpu/noise.h"
STEP_BACK, STEP_BACK_CPU = "kernels/ddim_step.py", "csrc/ddim_step.cpp"
NOISED, NOISED_CPU = "kernels/q_sample.py", "csrc/q_sample.cpp"
NORMED, NORMED_CPU, GROUPS = "kernels/group_norm_silu.py", "csrc/group_norm_silu.cpp", "kernels/_groups.py"
NCE, NCE_CPU = "kernels/info_nce.py", "csrc/info_nce.cpp"
SPLINE, SPLINE_ROOM = "csrc/spline_coupling.cu", "kernels/spline_coupling.py"
LOGARITHM, NLL_CPU = "csrc/cpu/logarithm.h", "csrc/softmax_nll.cpp"
SPLINE_CPU, SPLINE_BOTH = "csrc/spline_coupling.cpp", "csrc/spline_coupling.h"
MUTANTS = [
    Wrong("affine_coupling", AFFINE, "(x - t) * exp(-s)", "(x - t) * exp(s)", "a sign in the inverse"),
    Wrong("affine_coupling", AFFINE, "if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;\n    __syncthreads();",
          "if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;", "a dropped barrier"),
    Wrong("affine_coupling", AFFINE, "(c + 1) * CHUNK < D ? (c + 1) * CHUNK : D",
          "(c + 1) * CHUNK <= D ? (c + 1) * CHUNK : D - 1", "an off-by-one end"),
    Wrong("affine_coupling", AFFINE,
          "real<T> dl = dlogdet[v * V / D];\n    for (int i = 0; i < V; i++) {\n        real<T> es",
          "real<T> dl = dlogdet[v / D];\n    for (int i = 0; i < V; i++) {\n        real<T> es",
          "one stride for another"),
    Wrong("affine_coupling", ROOM, "s=s, t=None)\n    return dict(x=dx, s=ds, t=dy)",
          "s=s, t=None)\n    return dict(x=dx, s=ds, t=0.5 * dy)",
          "a factor in a gradient", "reference"),
    Wrong("affine_coupling", ROOM, "xes = kept * s.exp() if t is None else kept - t",
          "xes = kept * s.exp() if t is None else kept",
          "a forgotten term in a second derivative", "reference"),
    Wrong("spline_coupling", SPLINE_BOTH, "g = -d.input, e = -e;", "g = -d.input;", "a sign in the inverse's gradient",
          "emulated"),
    Wrong("spline_coupling", SPLINE, "__syncthreads();    // what follows reads", "// reads", "a dropped barrier"),
    Wrong("spline_coupling", SPLINE, "for (int64_t d = threadIdx.x; d < D; d += 32)",
          "for (int64_t d = threadIdx.x; d < D - 1; d += 32)", "an off-by-one end"),
    Wrong("spline_coupling", SPLINE, "shared[i / J * stride_of(K) + i % J]);", "shared[i]);", "one stride for another"),
    Wrong("spline_coupling", SPLINE_ROOM, "dv, dx, e = (g - e * dl) / slope, -g, -e", "dv, dx, e = g / slope, -g, -e",
          "a forgotten term in a gradient", "reference"),
    Wrong("spline_coupling", SPLINE_ROOM, "(share * d).sum(-1, keepdim=True)", "d.sum(-1, keepdim=True)",
          "a forgotten factor in a gradient", "reference"),
    Wrong("nearest_code", SEARCH, "(d == distance && other < k)", "(d == distance && other > k)",
          "the wrong one of two equals"),
    Wrong("nearest_code", SEARCH,
          "dot[i][j] = fmaf(xd[i], yd[j], dot[i][j]);\n            }\n            __syncthreads();",
          "dot[i][j] = fmaf(xd[i], yd[j], dot[i][j]);\n            }", "a dropped barrier"),
    Wrong("nearest_code", SEARCH, "x + at(wn + i * 16 + lane % 16, d + lane / 16 * 8)",
          "x + (wn + i * 16 + lane % 16) * HD + d + lane / 16 * 8", "pieces of a row in the wrong order"),
    Wrong("nearest_code", SIEVE, "low = score - margin(r, c);", "low = score + margin(r, c);",
          "a margin on the wrong side"),
    Wrong("nearest_code", PACK, "kept += x * x, rest += r * r;", "kept += x * x;", "a rounding that is not measured"),
    Wrong("quantize", STEP, "return 2 * (to_double(", "return (to_double(", "a missing 2"),
    Wrong("quantize", STEP, "if (index[n] == k) sum +=", "if (index[n] >= k) sum +=", "rows of other codes"),
    Wrong("quantize", STEP, "d += V << g", "d += 2 * V << g", "half of a long row of dz"),
    Wrong("quantize", SEGMENTS, "p < PARTS; p++) sum += part", "p < PARTS; p++) sum = part", "= for +="),
    Wrong("quantize", "kernels/quantize.py", "(z.to(sums) - e[index].detach().to(sums))",
          "(z.to(sums) - e[index].to(sums))",
          "a gradient that should have stopped", "reference"),
    Wrong("code_stats", SEGMENTS, "part[p][lane] = sum;\n        }\n        __syncthreads();",
          "part[p][lane] = sum;\n        }", "a dropped barrier"),
    Wrong("code_stats", SEGMENTS, "sum[0] += sum[p]", "sum[0] = sum[p]", "= for += of a warp alone"),
    Wrong("code_stats", SEGMENTS, "< last ? v[j] : 0.0", "< last ? v[j] : v[j]", "the last row four times"),
    Wrong("code_stats", SEGMENTS, "value(k, order[i], d)", "value(k, i, d)", "rows in the wrong order"),
    Wrong("code_stats", STATS, "count[k] = start[k + 1] - start[k];", "count[k] = start[k + 1] - start[k] - 1;",
          "an off-by-one count"),
    Wrong("masked_linear", DEGREES, "return out_degree > in_degree if STRICT else out_degree >= in_degree",
          "return out_degree >= in_degree", "an off-by-one mask"),
    Wrong("masked_linear", DEGREES, "w_ptrs + k.to(tl.int64)[:, None] * w_k",
          "w_ptrs + k.to(tl.int64)[:, None] * x_k", "one stride for another"),
    Wrong("masked_linear", LINEAR, "y += tl.load(b_ptr + j", "y = tl.zeros_like(y) + tl.load(b_ptr + j", "= for +="),
    Wrong("masked_linear", LINEAR, "tl.max(tl.where(live, t + 1, 0))", "tl.max(tl.where(live, t, 0))",
          "a staircase one tile too short"),
    Wrong("masked_linear", DEGREES, "dict(in_degree=~out_degree, out_degree=~in_degree, strict=strict)",
          "dict(in_degree=out_degree, out_degree=in_degree, strict=strict)", "a mask that is not turned", "reference"),
    Wrong("masked_linear", LINEAR, 'of_dw["dy"] + _linear(', '_linear(', "= for +=", "reference"),
    Wrong("masked_conv2d", TAPS, "return out_colour > in_colour if KIND_A else out_colour >= in_colour",
          "return out_colour >= in_colour", "an off-by-one mask"),
    Wrong("masked_conv2d", TAPS, "dw.to(tl.int64) * x_w", "dw.to(tl.int64) * x_h", "one stride for another"),
    Wrong("masked_conv2d", CONV, "y += tl.load(b_ptr + o", "y = tl.zeros_like(y) + tl.load(b_ptr + o", "= for +="),
    Wrong("masked_conv2d", TAPS, "x_ok = p_ok & (h + dh >= 0)", "x_ok = p_ok & (h + dh >= 1)",
          "a row of the border too much"),
    Wrong("masked_linear", LINEAR_CPU, "out > in_degree if strict else out >= in_degree", "out >= in_degree",
          "an off-by-one mask", "cpu"),
    Wrong("masked_linear", LINEAR_CPU, "live[0] + mixed[0]", "live[0]", "the mask of other inputs", "cpu"),
    Wrong("masked_linear", SORTED_CPU, "dx, 1, order.k_back", "dx, 1, order.k",
          "a gradient left in another order", "cpu"),
    Wrong("masked_linear", SORTED_CPU, "beta=int(n > 0)", "beta=0", "dW of the last block of rows alone", "cpu"),
    Wrong("masked_linear", LINEAR_CPU, "part.addmm_(x_seen, w.T)", "torch.mm(x_seen, w.T, out=part)", "= for +=",
          "cpu"),
    Wrong("masked_linear", LINEAR_CPU, "(sum(mixed), live[1])", "(sum(mixed) + 1, live[1])",
          "an input lost after the mixed ones", "cpu"),
    Wrong("masked_linear", SORTED_CPU, "_columns(x_block, order.k,", "_columns(x_block, order.k_back,",
          "columns in another order", "cpu"),
    Wrong("masked_linear", SPANS, "runs[-1] = range(runs[-1].start", "runs[-1] = range(t", "a span cut short",
          "cpu"),
    Wrong("masked_linear", SPANS, "place(mixed) if mixed", "place(mixed[:1]) if mixed", "mixed tiles taken for full",
          "cpu"),
    Wrong("masked_conv2d", CONV_CPU, "(copied, copied, ph, -1)", "(copied, copied, ph - 1, 0)",
          "an image moved by a row", "cpu"),
    Wrong("masked_conv2d", CONV, "return reference_turned(dy, weight, kind, colours), ref",
          "return reference(dy, weight, None, kind, colours), ref", "a gradient that is not turned", "reference"),
    Wrong("masked_conv2d", CONV_CPU, "(dy, (0, 0, 0, part.below))", "(dy, (0, 0, part.below, 0))",
          "a gradient moved by a row", "cpu"),
    Wrong("masked_conv2d", CONV_CPU, "y[:, :, :x.shape[2]] if", "y[:, :, -x.shape[2]:] if",
          "the rows above cut off", "cpu"),
    Wrong("masked_conv2d", CONV_CPU, "y[n] = convolved(x[n]", "y[n] = convolved(x[:1]", "one image for all", "cpu"),
    Wrong("masked_conv2d", CONV_CPU, "dw is None else dw.add_(dw_n)", "dw is None else dw_n", "the last dK", "cpu"),
    Wrong("masked_conv2d", CONV_CPU, "dx is None else dx.add_(dx_part)", "dx is None else dx_part", "= for +=", "cpu"),
    Wrong("code_stats", BY_CODE, "d + WIDTH <= d1; d += WIDTH", "d + WIDTH <= d1; d += WIDTH + 1",
          "a column forgotten", "cpu"),
    Wrong("code_stats", BY_CODE, "order[end[index[n]]++] = n;", "order[end[index[n]]] = n;", "rows lost", "cpu"),
    Wrong("code_stats", BY_CODE, "p.start(k) < group * R", "p.start(k) <= group * R",
          "the first code of a group forgotten", "cpu"),
    Wrong("code_stats", STATS_CPU, "at(p.z + n * p.D + d)", "at(p.z + n * p.D)", "the first columns for all", "cpu"),
    Wrong("quantize", STEP_CPU, "T((1 + p.beta) *", "T(p.beta *", "a forgotten term of the loss", "cpu"),
    Wrong("quantize", STEP_CPU, "index[n] < K ? e", "index[n] <= K ? e", "a code beyond the last", "cpu and bad_index"),
    Wrong("quantize", STEP_CPU, "return 2 * (at(", "return (at(", "a missing 2", "cpu"),
    Wrong("quantize", STEP_CPU, "(task + 1) * rows)", "(task + 1) * rows - 1)", "an off-by-one end", "cpu"),
    Wrong("quantize", ROW_SUMS, "if (d < d1) block(d, d1 - d);", "", "the last columns forgotten", "cpu"),
    Wrong("gaussian_kl", KL, "0.5 * l * l * series, tl.exp(l)", "l * l * series, tl.exp(l)", "a missing 1/2"),
    Wrong("gaussian_kl", KL, "at, ok = n[:, None] * D + d", "at, ok = n[:, None] * (D - 1) + d",
          "an off-by-one stride"),
    Wrong("gaussian_kl", KL, "dl = 0.5 * (dz * sigma_eps + dkl * slope)",
          "dl = 0.5 * (dz * sigma_eps + dkl * (1 + slope))",
          "a gradient that is not 0 at equality"),
    Wrong("gaussian_kl", KL, "(g * sigma_eps + dkl[:, None] * l.expm1()) / 2",
          "(g * sigma_eps + dkl[:, None] * l.exp()) / 2",
          "a forgotten term in a gradient", "reference"),
    Wrong("gaussian_kl", NOISE, "start // 4 + tl.arange(0, BD // 4)", "start // 4 + tl.arange(0, BD // 4) // 2",
          "a number drawn twice", "emulated and a_seed_draws"),
    Wrong("gaussian_kl", KL_CPU, "l * l * series : e_l", "l * series : e_l", "another power in a series", "cpu"),
    Wrong("gaussian_kl", KL_CPU, "p.sums[n * parts + i]", "p.sums[n * parts]", "the first part for every other", "cpu"),
    Wrong("gaussian_kl", KL_CPU, "dz + dkl * mu", "dz", "a forgotten term in a gradient", "cpu"),
    Wrong("q_sample", NOISED, "known = (t >= 0) & (t < T)", "known = (t > 0) & (t < T)", "an off-by-one time"),
    Wrong("q_sample", NOISED, "(alpha * eps - sigma * x0).to(y_ptr", "(alpha * eps + sigma * x0).to(y_ptr",
          "a sign of v"),
    Wrong("q_sample", NOISED, "alpha=alpha, sigma=-sigma, eps=dy", "alpha=alpha, sigma=sigma, eps=dy",
          "a gradient that is not turned back", "reference"),
    Wrong("ddim_step", STEP_BACK, "(key < more[:, None])", "(key <= more[:, None])", "a rank too low",
          "emulated and the_bound"),
    Wrong("ddim_step", STEP_BACK, "below <= rank, more, found", "below < rank, more, found", "an off-by-one rank"),
    Wrong("ddim_step", STEP_BACK, "alpha_s - k * alpha_t, k, c", "alpha_s - alpha_t, k, c", "a forgotten factor",
          "reference"),
    Wrong("group_norm_silu", GROUPS, "d = tl.where(ok, d - rest, 0)", "d = tl.where(ok, d, 0)",
          "a mean that is rounded", "emulated and an_offset"),
    Wrong("group_norm_silu", NORMED, "c1, c2 = tl.sum(w * B) / count", "c1, c2 = tl.sum(B) / count",
          "a forgotten factor in a gradient"),
    Wrong("group_norm_silu", NORMED, "tl.store(dgamma_ptr + c, dgamma, ok)", "tl.store(dgamma_ptr + c, A, ok)",
          "the last image for the sum of all"),
    Wrong("group_norm_silu", NORMED, "dz - dz.mean(2, keepdim=True) - z", "dz - z",
          "a gradient that moves the mean", "reference"),
    Wrong("info_nce", NCE, "v[None, :]) - log_t[None, :])", "u[:, None]) - log_t[None, :])",
          "one direction's maximum for the other's"),
    Wrong("info_nce", NCE, "dl = (dloss[:, None] * P + dloss * Q) / 2", "dl = (dloss[:, None] * P + dloss * Q)",
          "a missing 1/2", "reference"),
    Wrong("softmax_nll", NLL, "s = s * tl.exp(m - finite(top)) + tl.sum", "s = s + tl.sum",
          "a sum that does not shrink"),
    Wrong("softmax_nll", NLL, "(q - tl.where(l == t[None, :], 1, 0))", "(q - tl.where(l == t[None, :] + 1, 1, 0))",
          "an off-by-one level"),
    Wrong("softmax_nll", NLL, "dnll_ptr + n * d_n + p * d_p", "dnll_ptr + n * d_p + p * d_p", "one stride for another"),
    Wrong("softmax_nll", NLL, "da = (q - (l[:, None]", "da = (q.detach() - (l[:, None]",
          "a second derivative that stops", "reference"),
    Wrong("nade", NADE, "for (int w = 0; w < warps; w++) sum += column[w * 32];",
          "for (int w = 1; w < warps; w++) sum += column[w * 32];",
          "an off-by-one start"),
    Wrong("nade", "kernels/nade.py", "A = da.flip(1).cumsum(1).flip(1) - da", "A = da.flip(1).cumsum(1).flip(1)",
          "a pixel that learns from its own prediction", "reference"),
    Wrong("pixelcnn_sample", PIXELS, "(c + (tap.sight == UP_TO))", "(c + 1)", "a colour that sees itself"),
    Wrong("pixelcnn_sample", PIXELS, "made_ready(p, t + tid, i,", "made_ready(p, a.tap + tid, i,",
          "the first taps again and again"),
    Wrong("pixelcnn_sample", PIXELS_ROOM, "EARLIER: 0, UP_TO: 1}", "EARLIER: 0, UP_TO: 0}", "an off-by-one mask",
          "reference"),
    Wrong("made_sample", DRAWN, "below += exp(l[k]", "below = exp(l[k]", "= for +="),
    Wrong("made_sample", LANES, "own = upper ? v[i + C / 2] : v[i]", "own = v[i]", "the half that was given away"),
    Wrong("made_sample", DRAW, "level >= k ? T(1) : T(0)", "level > k ? T(1) : T(0)", "an off-by-one bit"),
    Wrong("made_sample", "kernels/_levels.py", "torch.sigmoid(-l)", "torch.sigmoid(l)", "a sign", "reference"),
]
NATIVE = [
    Wrong("info_nce", NCE_CPU, "p.D, slab > 0);", "p.D, false);", "the last slab for the sum of all", "cpu"),
    Wrong("info_nce", NCE_CPU, "std::max(columns, j); h <", "std::max(columns + 1, j); h <",
          "a column beyond the last", "cpu"),
    Wrong("info_nce", NCE_CPU, "n0 % SLAB) * BLOCK", "n0 % BLOCK) * BLOCK", "rows of another half of the slab", "cpu"),
    Wrong("group_norm_silu", NORMED_CPU, "w * stats[2] + zero, offset = b - stats[1] * (w * stats[2]) + zero",
          "w * stats[2] + zero, offset = b + zero", "a mean that is rounded", "cpu"),
    Wrong("group_norm_silu", NORMED_CPU, "vec<T> d = kept<T>(load(x + h, count) - m, count);",
          "vec<T> d = load(x + h, count) - m;", "lanes beyond the group", "cpu"),
    Wrong("group_norm_silu", NORMED_CPU, "dgamma[c - c0] += s * A[c]", "dgamma[c - c0] = s * A[c]", "= for +=", "cpu"),
    Wrong("group_norm_silu", VECTORS, "(l & half ? b[l] : a[l | half])", "(l & half ? b[l] : a[l])",
          "a lane twice for two", "cpu"),
    Wrong("affine_coupling", AFFINE_CPU, "whole_exponential<T>(inverse ? -s : s)", "whole_exponential<T>(s)",
          "a sign in the inverse's gradient", "cpu"),
    Wrong("affine_coupling", AFFINE_CPU, "a.step == 1 && (a.row == D || D >= SUMS)", "a.step == 1",
          "short rows that do not lie side by side", "cpu"),
    Wrong("affine_coupling", ROW_SUMS, "block(d, d1 - d)", "block(d, d1 - d - 1)", "an off-by-one end", "cpu"),
    Wrong("affine_coupling", AFFINE_CPU, "ceil_div(p.D, PART) + d0 / PART) * 2", "ceil_div(p.D, PART)) * 2",
          "the last part for every other", "cpu"),
    Wrong("affine_coupling", VECTORS, "_mm256_extractf128_ps(v, 1)", "_mm256_castps256_ps128(v)",
          "the lower half twice", "instruction_set"),
    Wrong("spline_coupling", LOGARITHM, "const V f = (m - 1) / (m + 1)", "const V f = m - 1",
          "a series of another number", "cpu"),
    Wrong("softmax_nll", NLL_CPU, "s[v] = s[v] * whole_exponential<T>(m[v] - least[v]) + sum[v]",
          "s[v] = s[v] + sum[v]", "a sum that is not scaled down", "cpu"),
    Wrong("softmax_nll", NLL_CPU, "count == LANES<T> && q + count <= p.P", "count == LANES<T>",
          "pixels of two images read as neighbours", "cpu"),
    Wrong("softmax_nll", NLL_CPU, "lane + h + (is_b & (L - h))", "lane + (is_b & (L - h))", "half of a transpose",
          "cpu"),
    Wrong("softmax_nll", NLL_CPU, "store(here, da(load(here), v, l))", "store(here, da(load(here), v, l - l0))",
          "the target of the first tile in each", "cpu"),
    Wrong("spline_coupling", SPLINE_CPU, "if (++d == p.D) n++, d = 0;", "if (++d == p.D) n++;",
          "every element with a row of its own", "cpu"),
    Wrong("spline_coupling", SPLINE_CPU, "std::min(p.N, (task + 1) * of_a_task)",
          "std::min(p.N - 1, (task + 1) * of_a_task)", "the last row forgotten", "cpu"),
    Wrong("ddim_step", STEP_BACK_CPU, "least_above = p.D - p.rank", "least_above = p.D - p.rank + 1",
          "an off-by-one rank", "cpu"),
    Wrong("q_sample", NOISED_CPU, "T(known ? p.sigma[p.t[n]] : 0)", "T(known ? p.sigma[p.t[n0]] : 0)",
          "every row with the time of the first", "cpu"),
    Wrong("q_sample", NOISE_CPU, "bits ^ (bits >> 31)", "bits & 0x7fffffff", "another uniform number", "cpu"),
    Wrong("made_sample", DRAW_CPU, "parallel(ceil_div(m.N, samples),", "parallel(m.N / samples,",
          "the last samples forgotten", "cpu"),
    Wrong("made_sample", DIVIDE, "(count + size - 1) / size", "count / size", "the last tile forgotten", "cpu"),
    Wrong("ddim_step", THREADS, "std::min(N, n + rows)", "std::min(N, n + rows - 1)", "an off-by-one end", "cpu"),
    Wrong("pixelcnn_sample", PIXELS_BOTH, "pixel[c * p.M + k] =", "pixel[p.M + k] =",
          "one colour's input in the place of another", "cpu"),
    Wrong("pixelcnn_sample", PIXELS_CPU, "parallel(ceil_div(p.N, samples),", "parallel(p.N / samples,",
          "the last samples forgotten", "cpu"),
    Wrong("pixelcnn_sample", PIXELS_CPU, "raw[o] = mine[o];", "raw[o] += mine[o];", "+= for =", "cpu"),
    Wrong("made_sample", DRAW_CPU, "m.end(i - 1, d), below}", "m.end(i - 1, d + 1), below}", "units that are not final",
          "cpu"),
    Wrong("nearest_code_cpu", SCREEN, "C * rho + length * book.sigma", "C * rho", "half a margin", "cpu"),
    Wrong("nearest_code_cpu", BOOK, "half[l] = 0.5f * half[l]", "half[l] = half[l]", "a missing 1/2", "cpu"),
    Wrong("nearest_code_cpu", NARROW, "gamma * reach * (norm + reach)", "0 * reach", "a margin without rounding",
          "cpu"),
    Wrong("nearest_code_cpu", FEW, "lowest<float>(low[r]) * grow + tiny", "lowest<float>(low[r])",
          "sums in float taken for the definition's", "cpu"),
    Wrong("nearest_code_cpu", INTEGERS, "sum += rotated(sum", "sum = rotated(sum", "= for +=", "cpu"),
    Wrong("nearest_code_cpu", DEFINITION, "(other == d && j < k)", "(other == d && j > k)",
          "the wrong one of two equals", "cpu"),
    Wrong("nearest_code_cpu", CPU, "std::min(N, n + rows)", "std::min(N, n + rows - 1)", "an off-by-one end", "cpu"),
    Wrong("nearest_code_cpu", NUMBERS, "(v.bits & 0x7fff) << 13", "(v.bits & 0x7fff) << 12",
          "a number read with half its exponent", "cpu"),
    Wrong("nade", VECTORS, "(meet(half[0], half[1]), meet)", "(half[0], meet)",
          "half of the lanes forgotten", "cpu"),
    Wrong("nade", NADE_CPU, "(task + 1) * p.N / tasks", "(task + 1) * p.N / tasks - 1", "an off-by-one end", "cpu"),
    Wrong("nade", NADE_CPU, "if (!p.x[nd]) continue;    // a pixel of 0 changes nothing", "",
          "a pixel of 0 that adds its column", "cpu"),
]
THOROUGH = [
    Wrong("info_nce", NCE, "s = s * tl.exp(u - finite(top)) + tl.sum", "s = s + tl.sum", "a sum that does not shrink"),
    Wrong("info_nce", NCE, "at = tl.program_id(0).to(tl.int64) * N + m", "at = m", "the last rows for all parts",
          "emulated-shared"),
    Wrong("nearest_code", SEARCH, "if (!stay || next < steps)", "if (next < steps)", "rows that do not come again"),
    Wrong("nearest_code", SIEVE, "s.bound[mine], ordered(low + least)", "s.bound[mine], ordered(low)",
          "too low a bound"),
    Wrong("nearest_code", SIEVE, "g1 = x.rest + x.norm", "g1 = x.norm", "a margin without R_x N_k"),
    Wrong("nearest_code", SIEVE, "r.g2 * c.rest", "0 * c.rest", "a margin without N_x R_k"),
    Wrong("nearest_code", SIEVE, "x.norm * (gamma + 0x1p-22f)", "x.norm * 0x1p-22f", "a margin without gamma"),
    Wrong("nearest_code", SIEVE, "w.D * 0x1p-50f * x.norm * x.norm + 0x1p-100f", "0x1p-100f",
          "a margin without the definition's own error"),
    Wrong("nearest_code", PACK, "Placed{0, ldexpf(v.norm, -REACH), ldexpf(v.norm, -REACH), 0}", "Placed{0, 0, 0, 0}",
          "short codes taken for zero"),
    Wrong("nearest_code_cpu", THREADS, "std::fegetenv(&saved), std::fesetenv(FE_DFL_ENV);", "std::fegetenv(&saved);",
          "subnormals flushed", "cpu and rounding_mode"),
    Wrong("nearest_code_cpu", SCREEN, "C * rho + length * book.sigma", "length * book.sigma",
          "the other half of a margin", "cpu"),
    Wrong("nearest_code_cpu", SCREEN, "row.twice_w = 1.1f * (p.D + 4) * 0x1p-52f * row.square", "row.twice_w = 0",
          "a threshold without 2 w", "cpu"),
    Wrong("nearest_code_cpu", NARROW, "+ eta * square", "", "a margin without the definition's own error", "cpu"),
    Wrong("nearest_code_cpu", NARROW, "norm <= usual / 8 ? near : far", "near", "far codes with a margin of near ones",
          "cpu"),
    Wrong("nearest_code_cpu", NARROW, "2.01f * margin", "0.01f * margin", "a hundredth of a margin", "cpu"),
    Wrong("nearest_code_cpu", NARROW, "grouped ? among(k / L * L, k / L * L + L) : k", "k",
          "the first of a group taken for the nearest", "cpu"),
    Wrong("nearest_code_cpu", FEW, "s.rows[n - n0].threshold <= FLOAT_REACHES", "true", "sums beyond float's reach",
          "cpu"),
    Wrong("nearest_code_cpu", FEW, "sum * grow + tiny", "sum", "sums in double taken for the definition's", "cpu"),
    Wrong("nearest_code_cpu", SCREEN, "slack + square * u", "slack", "a margin without the rounding of norms",
          "cpu"),
    Wrong("nearest_code_cpu", SCREEN, "* 2.00001f", "* 1.8f", "a threshold a tenth too low", "cpu"),
    Wrong("nearest_code_cpu", DEFINITION, "FAR_ROW = 0x1p118f", "FAR_ROW = 0x1p126f",
          "rows as far away as the codes that are left out", "cpu"),
    Wrong("nearest_code_cpu", BOOK, "std::abs(exponent) > 450", "std::abs(exponent) > 1000", "squares that underflow",
          "cpu"),
    Wrong("pixelcnn_sample", PIXELS, "__syncthreads();    // the streams are visible to all", "// to all",
          "a dropped barrier"),
    Wrong("made_sample", DRAW, "__syncthreads();    // all threads see these units; and", "// and",
          "a dropped barrier"),
    Wrong("affine_coupling", AFFINE, "low = __dadd_rn(low, e == e ? e : 0.0);", "", "an uncompensated sum"),
    Wrong("affine_coupling", AFFINE,
          "logdet[n] = real<T>(inverse ? -sum.value() : sum.value());\n}\n\ntemplate <class T>    // t is",
          "logdet[n] = real<T>(sum.value());\n}\n\ntemplate <class T>    // t is", "a sign of logdet in one rung"),
]
SHORTCUTS = [  # what they must heed (tests/kernels/test_door_laws.py)
    Wrong("door", "kernels/_plan.py", "if kind.alike(*tensors):", "if tensors:", "tensors of another kind", "door"),
    Wrong("door", "kernels/_door.py", "torch.is_grad_enabled(), requested", "True, requested",
          "a gradient that is lost", "door"),
]
# one of each file with a kernel in it: those of a room together must leave the tests of its `reference` green
FIRST = {wrong.file: wrong for wrong in reversed(MUTANTS + NATIVE) if wrong.runs != "reference"}
CASES = MUTANTS + NATIVE + SHORTCUTS + [pytest.param(wrong, marks=pytest.mark.thorough) for wrong in THOROUGH]


@pytest.fixture(scope="module")
def red():
    with watching() as red:
        yield red


@pytest.mark.parametrize("wrong", CASES, ids=str)
def test_wrong_fails(wrong, tmp_path, red):
    planted(wrong, tmp_path)
    assert red(tmp_path, [wrong.room], wrong.runs), f"no test noticed {wrong.what} in {wrong.file}"


@pytest.mark.parametrize("room", sorted({wrong.room.removesuffix("_cpu") for wrong in FIRST.values()}))
def test_mistakes_of_a_room_leave_its_reference_green(room, tmp_path, red):
    copied(tmp_path)
    mistakes = [wrong for wrong in FIRST.values() if wrong.room.removesuffix("_cpu") == room]
    for wrong in mistakes:
        plant(wrong, tmp_path)
    if any(wrong.file.startswith("csrc/") for wrong in mistakes):
        build(tmp_path, "--kinds", "cpu", "emulated", "--only", room)
    output = red(tmp_path, [room], "reference", registered=False)
    assert not output, output[-6000:]


def computes(path):
    """Whether the code, without comments and directives, has an operator of arithmetic."""
    code = re.sub(r"//.*|^ *#(?:.*\\\n)*.*", "", path.read_text(), flags=re.M)
    return re.search(r" (?:[-+*/]|<<)=? ", code) is not None


def test_every_kernel_source_has_a_mistake():
    """FIRST, whose mistakes leave `reference` green, has a mistake for every file with a kernel in it.

    These are the files of csrc/ that belong to a room or to two, and what native kernels share, if they compute
    something; and the rooms that hold Triton kernels, with their helpers.
    """
    rooms = {path for path in (ROOT / "kernels").glob("*.py") if "\n@triton.jit\n" in path.read_text()}
    rooms |= {*(ROOT / "kernels").glob("_*_cpu.py"), ROOT / SPANS}
    patterns = ["cpu/*.h", "segments.h", "draw.h", "lanes.h"]
    patterns += [f"{source}*.{kind}" for source in SOURCES for kind in ("cu", "cpp", "h")]
    files = rooms.union(*(filter(computes, (ROOT / "csrc").glob(pattern)) for pattern in patterns))
    assert {str(path.relative_to(ROOT)) for path in files} == set(FIRST)
