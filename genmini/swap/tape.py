"""What a network asks of PyTorch in one call, as far as it depends on the image: a tape of Nodes.

It is recorded below all modules and functions, where only PyTorch's own operators are left: a convolution is given its
weights after whatever masks or normalises them, and dropout in evaluation is none.

    image                      any function of the image alone: what it is, is seen where a convolution reads it
    convolution                W, bias, padding, dilation;   pad: zeros around, for a convolution that follows
    affine                     scale o x + shift, a number a channel: batch norms in evaluation, factors, biases
    relu, tanh, sigmoid, softmax, log_softmax (over channels), add, part (some channels)
    gate                       tanh(f) o sigma(g)
    unknown                    everything else, with the reason

    used by: genmini/swap/pixels.py
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genmini.kernels import _live_taps

SAME = ("clone", "detach", "alias", "view", "_unsafe_view", "unsqueeze", "squeeze", "_to_copy", "expand")


class Node:
    """A tensor of a call: what kind of operator gives it, of which other Nodes, with which numbers"""

    def __init__(self, kind, *of, **given):
        self.kind, self.of = kind, of
        vars(self).update(given)


def unknown(why, *of):
    return Node("unknown", *of, why=why)


class Tape(TorchDispatchMode):
    """Nodes in their order, and of the network's output the last

        with Tape(images) as tape:
            out = network(images)
        tape.of(out)
    """

    def __init__(self, images):
        super().__init__()
        self.size, self.nodes, self.node_of, self.kept = tuple(images.shape[-2:]), [], {}, []
        self.looked = ""  # the operator by which Python has seen a number of an image
        self.note(images, Node("image"))

    def of(self, tensor):
        return self.node_of.get(id(tensor)) if isinstance(tensor, torch.Tensor) else None

    def note(self, tensor, node):
        self.node_of[id(tensor)] = node
        self.kept.append(tensor)  # so that no other tensor gets its id
        self.nodes.append(node)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        of = [node for leaf in tree_leaves((args, kwargs)) if (node := self.of(leaf))]
        out = function(*args, **kwargs)
        name, first = function._schema.name.split("::")[1].rstrip("_"), 0  # relu_ is relu
        for each in (out if isinstance(out, tuple | list) else [out]) if of else ():
            if isinstance(each, torch.Tensor):
                self.note(each, self.rule(name, of, args, kwargs, each, first))
                first += each.shape[1] if each.dim() > 1 else 0
            else:
                self.looked = name.lstrip("_")
        return out

    def rule(self, name, of, args, kwargs, out, first):
        """The Node of an operator's output.   first: how many channels the outputs before it have"""
        x, alone = of[0], len(of) == 1 and bool(args) and self.of(args[0]) is of[0]
        if name == "convolution" and alone:
            return self.convolution(x, *args)
        if name == "masked_conv2d" and alone:  # of genmini.layers
            read, W, bias, kind, colours = args[:5]
            padding = [side // 2 for side in W.shape[2:]]
            W = _live_taps.masked(W, kind, colours)
            return self.convolution(x, read, W, bias, (1, 1), padding, (1, 1), False, (), 1)
        if name == "constant_pad_nd" and alone and len(args[1]) <= 4 and not any(args[2:]):
            left, _, top, _ = (*args[1], 0, 0)[:4]
            return Node("pad", x, before=(top, left), read=args[0])
        if {node.kind for node in of} == {"image"}:
            return Node("image")
        if name in ("native_batch_norm", "cudnn_batch_norm") and alone:
            return batch_norm(x, *args)
        if name in ("add", "sub", "rsub", "mul", "div") and "rounding_mode" not in kwargs:
            a, b, *rest = args if name != "rsub" else (args[1], args[0], *args[2:])
            return self.arithmetic(name.lstrip("r"), a, b, *(rest or [kwargs.get("alpha", 1)]), out)
        if name in ("bernoulli", "native_dropout"):
            return unknown("dropout is in training: call network.eval() first", *of)
        if name in ("relu", "tanh", "sigmoid"):
            return Node(name, x)
        if name in ("_softmax", "_log_softmax") and args[1] in (1, 1 - out.dim()):
            return Node(name[1:], x)
        if name in ("split", "split_with_sizes", "slice") and alone and out.shape[-2:] == self.size:
            dim, start, step = args[2] if len(args) > 2 else 0, first, 1
            if name == "slice":
                dim, start, _, step = *args[1:], *(0, 0, None, 1)[len(args) - 1 :]
            if dim in (1, -3) and out.dim() == 4 and step == 1:
                channels = range(args[0].shape[1])[start or 0 :][: out.shape[1]]
                return Node("part", x, channels=list(channels), width=args[0].shape[1])
        if name in SAME and alone and out.shape[-2:] == self.size and out.numel() == args[0].numel():
            return x
        return unknown(f"{name} is none of the operators that are known here", *of)

    def convolution(self, x, read, W, bias, stride, padding, dilation, transposed, _, groups):
        O, k = W.shape[0], W.shape[1]
        if transposed or set(stride) != {1} or W.dim() != 4:
            return unknown("a convolution is none of images, has a stride, or is transposed", x)
        size = tuple(n + 2 * p - d * (side - 1) for n, p, d, side in
                     zip(read.shape[-2:], padding, dilation, W.shape[2:], strict=True))
        if size != self.size:
            return unknown(f"a convolution makes {size} pixels of {self.size}", x)
        wide = W.new_zeros(O, k * groups, *W.shape[2:])
        for rows, columns in zip(torch.arange(O).chunk(groups), torch.arange(k * groups).chunk(groups), strict=True):
            wide[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = W[rows]
        bias = W.new_zeros(O) if bias is None else bias.clone()
        return Node("convolution", x, W=wide, bias=bias, padding=padding, dilation=dilation, read=read)

    def arithmetic(self, name, a, b, alpha, out):
        x, y = self.of(a), self.of(b)
        if x and y:
            if name == "mul" and {x.kind, y.kind} == {"tanh", "sigmoid"}:
                f, g = (x, y) if x.kind == "tanh" else (y, x)
                return Node("gate", *f.of, *g.of)
            known = name == "add" and alpha == 1
            return Node("add", x, y) if known else unknown(f"{name} of two of its tensors is not known here", x, y)
        number = torch.as_tensor(b if x else a, dtype=torch.float64, device=out.device)
        if number.dim() > 4 or any(side > 1 for at, side in enumerate(reversed(number.shape)) if at != 2):
            return unknown(f"{name} of numbers that differ from pixel to pixel or from image to image", x or y)
        number = number.flatten().expand(out.shape[1])
        one, sign = torch.ones_like(number), -1 if name == "sub" else 1
        if name in ("add", "sub"):
            scale, shift = (one, sign * alpha * number) if x else (sign * alpha * one, number)
        elif name == "mul" or x:
            scale, shift = number if name == "mul" else 1 / number, 0 * number
        else:
            return unknown("a number is divided by one of its tensors", y)
        return Node("affine", x or y, scale=scale, shift=shift)


def batch_norm(x, read, gamma, beta, mean, var, training, momentum, eps):
    if training:
        return unknown("a batch norm is in training: call network.eval() first", x)
    scale = (1 if gamma is None else gamma.double()) / (var.double() + eps).sqrt()
    return Node("affine", x, scale=scale, shift=(0 if beta is None else beta.double()) - mean.double() * scale)
