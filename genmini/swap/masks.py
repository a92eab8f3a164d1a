"""Whether a mask is still the one that was seen, and which degrees describe it; the same for torch.compile."""

import torch


def same(mask, known):
    """Whether they hold the same bytes; eight at a time, where that is possible."""
    if mask.shape != known.shape or mask.dtype != known.dtype or mask.device != known.device:
        return False
    eights = (mask.numel() | mask.storage_offset()) * mask.element_size() % 8 == 0
    if mask.is_contiguous() and known.is_contiguous() and eights:
        mask, known = mask.view(-1).view(torch.int64), known.view(-1).view(torch.int64)
    return torch.equal(mask, known)


def degrees(mask):
    """Degrees with mask_jk = [out_degree_j >= in_degree_k], (K), (J), or None if none describe it.   mask (J, K)

    Inputs that an output sees must be nested: then out_degree_j may be how many it sees, and in_degree_k the least of
    the outputs that see k.
    """
    out_degree = mask.sum(1)
    in_degree = torch.where(mask, out_degree[:, None], mask.shape[1] + 1).amin(0)
    return (in_degree, out_degree) if torch.equal(out_degree[:, None] >= in_degree, mask) else None


@torch.library.custom_op("genmini::swap_degrees", mutates_args=())
def known_degrees(mask: torch.Tensor, known: torch.Tensor, in_degree: torch.Tensor,
                  out_degree: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The degrees of a mask, which are the given ones if it is still the known mask: opaque to torch.compile."""
    if same(mask, known):
        return in_degree.clone(), out_degree.clone()
    found = degrees((mask != 0).expand(len(out_degree), len(in_degree)))
    if found is None:
        raise RuntimeError("a mask has changed, and no degrees describe it: genmini.unswap(model), and compile again")
    return found


@known_degrees.register_fake
def _(mask, known, in_degree, out_degree):
    return torch.empty_like(in_degree), torch.empty_like(out_degree)


@torch.library.custom_op("genmini::swap_unchanged", mutates_args=())
def unchanged(mask: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """0, if the mask is still the known one: opaque to torch.compile, which must not drop it."""
    if not same(mask, known):
        raise RuntimeError("a mask has changed: genmini.unswap(model), swap and compile again")
    return torch.zeros((), device=mask.device)


@unchanged.register_fake
def _(mask, known):
    return torch.empty((), device=mask.device)
