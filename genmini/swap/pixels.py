"""Draws from a stranger's PixelCNN for the arithmetic of one pass, where its owner's loop asks it once a pixel.

    x = genmini.swap.draw_pixels(network, torch.rand(64, 1, 28, 28), torch.arange(256) / 255)

No source is read: a copy of the network, with its hooks, is called with a few random images, and what it asks of
PyTorch is recorded (genmini/swap/tape.py). That becomes the layers of kernels/pixelcnn_sample.py. The table of levels
is what the first convolutions read: the images hold every level, and all pixels of a level must read the same. A tap
whose weights are not 0 and that sees the pixel itself or a later one is an error, as is every operator that the room
has not.

Then the network is called once more, with what was drawn: where its p(x_d | x_<d) are not those that were drawn from,
that is an error too, in the place of the images.
"""

import torch

from genmini import ops
from genmini.kernels import _check
from genmini.kernels._pixel_layers import ALL, Layer, Tap, looks_back

from . import gate
from .forward import Swapped, remove
from .tape import Tape

LAST = {"softmax": torch.Tensor.clone, "log_softmax": torch.exp, "sigmoid": torch.Tensor.clone}  # -> probabilities


def refused(why):
    return ValueError(f"genmini.swap.draw_pixels cannot draw from this network: {why}")


@torch.no_grad()
def draw_pixels(network, u, values):
    """Images (N, 1, H, W), drawn pixel by pixel, row by row, or a ValueError that says why not.

    network: an nn.Module of masked convolutions. network(images) is (N, F, H, W) or (N, F, 1, H, W): F = L numbers, of
    which a softmax is p(level), or that softmax or its logarithm; for two levels also one number, of which a sigmoid is
    p(1), or that sigmoid
    u: uniform noise (N, 1, H, W), as torch.rand gives it; the same noise gives the same images
    values (L): what the network is given for each level, and what the images hold. A list is taken in its dtype
    """
    gate.check(network)
    if not isinstance(u, torch.Tensor) or u.dim() != 4 or u.shape[1] != 1 or 0 in u.shape[2:]:
        raise ValueError(f"u must be uniform noise (N, 1, H, W), got {tuple(getattr(u, 'shape', ())) or u!r}")
    _check.tensors(u=u)
    if not ((u >= 0) & (u <= 1)).all():
        raise ValueError("u must be uniform noise from 0 to 1, and it holds other numbers")
    values = numbers(values, gate.like(network).dtype).to(u.device)
    layers, last = layers_of(network, values, *u.shape[2:])
    x, l = ops.pixelcnn_sample(u.flatten(1), list(layers), u.shape[1:], len(values), logits=True, E=layers.E)
    images = values[x].view(u.shape)
    ours, theirs = likely(l), network(images.clone()).flatten(2).mT  # (N, D, F)
    theirs = LAST[last](theirs) if last else likely(theirs)
    if not theirs.isfinite().all():
        raise refused("its probabilities are not finite")
    far = gate.apart(ours, theirs[..., 1:] if theirs.shape[2] == 2 else theirs)  # of two levels that of level 1
    if not far <= torch.finfo(theirs.dtype).eps ** 0.5:
        raise refused(f"of what was drawn it says something else, by {far:.1e} of the largest probability")
    return images


def numbers(values, dtype):
    """-> values (L), as a tensor"""
    try:
        tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(values, dtype=dtype)
    except (TypeError, ValueError, RuntimeError):
        tensor = torch.empty(0)
    if tensor.dim() != 1 or len(tensor) < 2:
        raise ValueError(f"values must hold a number for each of at least two levels, got {str(values)[:80]}")
    return tensor


def likely(l):
    """The probabilities (N, D, F) that these numbers give; of a single one that of level 1"""
    return l.sigmoid() if l.shape[2] == 1 else l.softmax(2)


def copy_with_hooks(network):
    """A copy of it as its owner wrote it; the older weight_norm is a hook"""
    copied = gate.copy_of(network)
    for module, owners in zip(copied.modules(), network.modules(), strict=True):
        if isinstance(vars(module).get("forward"), Swapped):
            remove(module)
        for name in gate.OF_CALLS:
            vars(module)[name].update(vars(owners)[name])
    return copied


def layers_of(network, values, H, W):
    """-> Layers of a network, and the word of LAST in which it ends, or none"""
    count = max(2, -(-2 * len(values) // (H * W)))
    levels = (torch.randperm(count * H * W, generator=torch.Generator().manual_seed(0)) % len(values)).to(values.device)
    levels = levels.view(count, 1, H, W)
    images = values[levels]
    try:
        copied = copy_with_hooks(network)
        with torch.inference_mode(False), torch.no_grad(), Tape(images) as tape:  # in inference mode modes see less
            out = copied(images)
    except Exception as error:  # of a stranger
        raise refused(f"a copy of it cannot be called with images {tuple(images.shape)} of {images.dtype}: "
                      f"{gate.reason(error)}") from error
    node = tape.of(out)
    if tape.looked:
        raise refused(f"it looks at numbers of an image ({tape.looked}): what it would do with others, nobody can tell")
    if node is None and isinstance(out, torch.Tensor):
        raise refused("its output does not depend on the image by any operator that is seen: one that writes into a "
                      "part of a tensor is not")
    if node is None or out.dim() not in (4, 5) or out.shape[2:] not in ((H, W), (1, H, W)):
        raise refused(f"it gives {type(out).__name__} {tuple(getattr(out, 'shape', ()))}, no tensor (N, F, H, W)")
    last, F, L = node.kind if node.kind in LAST else "", out.shape[1], len(values)
    if not (F == L and last != "sigmoid" or (F, L) == (1, 2) and last in ("", "sigmoid")):
        raise refused(f"it gives {F} numbers a pixel{', after a ' * bool(last)}{last}, for {L} levels")
    return Layers(levels, L, tape, node.of[0] if last else node), last


class Layers(list):
    """The layers of the room in the place of a network's Nodes, and the table E (L, M) of their input"""

    def __init__(self, levels, L, tape, end):
        super().__init__()
        self.levels, self.L, self.E, self.of_node = levels, L, None, {}
        needed, self.readers = {end}, dict.fromkeys(tape.nodes, 0)
        for node in reversed(self.readers):
            for each in node.of if node in needed else ():
                needed.add(each)
                self.readers[each] += 1
        for node in self.readers:
            if node in needed and (make := getattr(self, f"of_{node.kind}", None)):
                self.of_node[node] = make(node)
        r = self.stream(end)
        if self.channels(r) == L == 2:  # the room wants their difference
            r = self.add([(r, self.eye(r)[:, 1:] - self.eye(r)[:, :1])])
        if r != 2 * len(self) - 1:  # what decides is the sum of the last layer
            self.add([(r, self.eye(r))])
        for a, layer in enumerate(self):
            self.order(a, layer)

    def order(self, a, layer):
        """By rows, if all that it reads lies in rows above or is known by rows; else it must look back."""
        by_rows = [r > 0 and self[(r - 1) // 2].rows for r in range(2 * a + 1)]
        back = lambda rows, tap: looks_back(rows, tap.stream, by_rows[tap.stream], tap.di, tap.dj, tap.sight, 1)
        layer.rows = all(back(True, tap) for tap in layer.taps) and (not layer.residual or by_rows[layer.residual])
        for tap in layer.taps:
            if not layer.rows and not back(False, tap):
                raise refused("a weight other than 0 " + (f"sees the pixel at ({tap.di:+d}, {tap.dj:+d}), drawn later"
                              if tap.di or tap.dj else "of the first layers sees the pixel that is drawn"))

    # ---- streams: 2 a + 1 is the sum of layer a, 2 a + 2 what its activation makes of it ---------------------------

    def add(self, terms, bias=None, residual=None):
        """A layer of terms (stream, W (channels, outputs)) at the pixel, or of taps -> the stream of its sum"""
        taps = [Tap(*term) if len(term) == 5 else Tap(term[0], 0, 0, ALL, term[1]) for term in terms]
        bias = torch.zeros_like(taps[0].W[0]) if bias is None else bias
        self.append(Layer(taps, bias, residual=residual))
        return 2 * len(self) - 1

    def channels(self, r):
        layer = self[(r - 1) // 2]
        return len(layer.bias) // (1 + (layer.act == "gate" and r % 2 == 0))

    def eye(self, r):
        return torch.eye(self.channels(r)).to(self[(r - 1) // 2].bias)

    def stream(self, node):
        """Where the numbers of a Node are"""
        if node.kind == "unknown":
            raise refused(node.why)
        if node.kind == "part" and node not in self.of_node:
            x = self.stream(node.of[0])
            self.of_node[node] = self.add([(x, self.eye(x)[:, node.channels])])
        if node not in self.of_node:
            what = {"image": "the image itself", "pad": "zeros around a tensor"}.get(node.kind, f"a {node.kind}")
            raise refused(f"{what} is read by another operator than is known here")
        return self.of_node[node]

    def free(self, node, r, readers=1):
        """The layer whose sum this is, if nobody else reads that sum: it may still be changed"""
        layer = self[(r - 1) // 2]
        return layer if r % 2 and not layer.act and layer.residual is None and self.readers[node] == readers else None

    # ---- what becomes of each kind of Node -------------------------------------------------------------------------

    def of_convolution(self, node):
        (x,), read, (i, j) = node.of, node.read, node.padding
        if x.kind == "pad":
            read, (top, left), (x,) = x.read, x.before, x.of
            i, j = i + top, j + left
        r = self.table(read) if x.kind == "image" else self.stream(x)
        wide = torch.promote_types(node.W.dtype, torch.float32)  # in which factors are multiplied into the weights
        W, bias = node.W.to(wide), node.bias.to(wide)
        places = [(u, v) for u in range(W.shape[2]) for v in range(W.shape[3])]
        taps = [(r, u * node.dilation[0] - i, v * node.dilation[1] - j, ALL, W[:, :, u, v].T)
                for u, v in places if W[:, :, u, v].any()]
        return self.add(taps, bias)

    def table(self, read):
        """Stream 0: what is read (n, M, H, W), as a function of the level of a pixel"""
        if read.shape[-2:] != self.levels.shape[-2:]:
            raise refused("its first convolution reads an image of another size: only zeros may stand around")
        rows = read.movedim(1, -1).flatten(0, -2)  # (n H W, M)
        E = rows.new_zeros(self.L, rows.shape[1]).index_copy(0, self.levels.flatten(), rows)
        if not gate.apart(E[self.levels.flatten()], rows) <= 8 * torch.finfo(E.dtype).eps:
            raise refused("what its first convolution reads is no function of one pixel's level")
        if self.E is not None and not torch.equal(self.E, E):
            raise refused("two of its convolutions read the image in two ways")
        self.E = E
        return 0

    def of_affine(self, node):
        (x,), r = node.of, self.stream(node.of[0])
        like = self[(r - 1) // 2].bias
        scale, shift = node.scale.to(like), node.shift.to(like)
        if layer := self.free(x, r):
            layer.taps = [tap._replace(W=tap.W * scale) for tap in layer.taps]
            layer.bias = layer.bias * scale + shift
            return r
        return self.add([(r, scale.diag())], shift)

    def of_relu(self, node):
        r = self.stream(node.of[0])
        if r % 2 == 0 or self[(r - 1) // 2].act == "gate":
            r = self.add([(r, self.eye(r))])
        self[(r - 1) // 2].act = "relu"
        return r + 1

    def of_add(self, node):
        pair = [(each, self.stream(each)) for each in node.of]
        (x, r), (y, s) = sorted(pair, key=lambda each: -each[1])
        if self.channels(r) != self.channels(s):
            raise refused("a sum of tensors of other channels")
        if s < r and (layer := self.free(x, r)):
            layer.residual = s
            return r
        return self.add([(r, self.eye(r))], residual=s)

    def of_gate(self, node):
        """The room wants f and g of a channel side by side."""
        f, g = node.of
        if f.kind == g.kind == "part" and f.of == g.of and len(f.channels) == len(g.channels):
            (x,), order = f.of, [k for pair in zip(f.channels, g.channels, strict=True) for k in pair]
            r = self.stream(x)
            if sorted(order) == list(range(self.channels(r))) and (layer := self.free(x, r, readers=2)):
                layer.taps = [tap._replace(W=tap.W[:, order]) for tap in layer.taps]
                layer.bias = layer.bias[order]
            else:
                r = self.add([(r, self.eye(r)[:, order])])
        else:
            r, s = self.stream(f), self.stream(g)
            if self.channels(r) != self.channels(s):
                raise refused("a product of tensors of other channels")
            pairs = torch.eye(2 * self.channels(r)).to(self.eye(r))
            r = self.add([(r, pairs[0::2]), (s, pairs[1::2])])
        self[(r - 1) // 2].act = "gate"
        return r + 1
