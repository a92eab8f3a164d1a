"""CLIP in two processes of torchrun: together they have the loss and the gradients of one process with both batches.

The script below is run by torchrun, where gloo joins the processes. Its mean of gradients is what DDP takes.
"""

import subprocess
import sys
from pathlib import Path

import torch
from test_clip import X, Y, clip

HERE = Path(__file__).parent
SCRIPT = """
import sys
import torch
from torch import distributed

sys.path[:0] = sys.argv[1:3]
from test_clip import X, Y, clip

distributed.init_process_group("gloo")
P, p = distributed.get_world_size(), distributed.get_rank()
own = slice(p * len(X) // P, (p + 1) * len(X) // P)
model = clip(swapped=0.7).train()
loss = model.loss(X[own], Y[own])
loss.mean().backward()
gradients = [parameter.grad for parameter in model.parameters()]
for gradient in gradients:
    distributed.all_reduce(gradient)
    gradient /= P
judged = model.eval().loss(X[own], Y[own])  # of this process alone: it may be the only one that is judged
torch.save([loss.detach(), gradients, judged.detach()], f"{sys.argv[3]}/{p}.pt")
distributed.destroy_process_group()
"""


def test_two_processes_learn_from_the_batch_of_both(tmp_path):
    """Float64: 1e-12 is 100 roundings of sums of 20 numbers of size 10, as in test_clip.py."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                           tmp_path / "script.py", HERE, HERE.parent, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts = [torch.load(tmp_path / f"{p}.pt") for p in range(2)]
    model = clip(swapped=0.7).train()
    loss = model.loss(X, Y)
    loss.mean().backward()
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), loss.detach(), rtol=0, atol=1e-12)
    for each, one, two in zip(model.parameters(), parts[0][1], parts[1][1], strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, each.grad, rtol=1e-9, atol=1e-9)
    model.eval()
    for part, own in zip(parts, (slice(0, 10), slice(10, 20)), strict=True):
        torch.testing.assert_close(part[2], model.loss(X[own], Y[own]).detach(), rtol=0, atol=1e-12)
        assert not torch.allclose(part[2], loss[own])
