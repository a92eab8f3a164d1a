"""Two processes of gloo: codes that are moving averages follow the vectors of both; DDP and FSDP learn as one process.

The scripts below run in each process. A batch of 24 vectors in one process, or 10 and 14 in two, moves the codes alike.
"""

import subprocess
import sys

import pytest
import torch
from torch import nn

from genmini import layers

SCRIPT = """
import sys
import torch
from torch import distributed, nn

sys.path[:0] = sys.argv[1:2]
from test_processes import PARTS, STEPS, batch, model

p, folder = int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{folder}/meet", rank=p, world_size=2)
found = {}
for name in ("averages", "revived", "learned"):
    wrapped = nn.parallel.DistributedDataParallel(model(name)) if name == "learned" else model(name)
    optimizer = torch.optim.SGD(wrapped.parameters(), 0.5) if name == "learned" else None
    torch.manual_seed(p)  # what each draws is its own
    for step in range(STEPS):
        z_q, index, loss = wrapped(batch(step)[PARTS[p]])
        if optimizer:
            optimizer.zero_grad()
            (2 * loss.sum() / 24).backward()  # DDP takes the mean over processes of their gradients
            optimizer.step()
    found[name] = {key.removeprefix("module."): value for key, value in wrapped.state_dict().items()}
apart = model("averages").eval()  # in one process alone nothing waits for the other
if p == 0:
    apart(batch(0))
torch.save(found, f"{folder}/{p}.pt")
distributed.destroy_process_group()
"""
SHARDED = """
import sys
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

sys.path[:0] = sys.argv[1:2]
from test_processes import masked, steps

p, folder = int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{folder}/meet", rank=p, world_size=2)
network, mesh = masked(), init_device_mesh("cpu", (2,))
for layer in (network[0], network[2], network):
    fully_shard(layer, mesh=mesh)
steps(network, p)
torch.save({key: value.full_tensor() if hasattr(value, "full_tensor") else value
            for key, value in network.state_dict().items()}, f"{folder}/{p}.pt")
distributed.destroy_process_group()
"""
PARTS, STEPS = (slice(0, 10), slice(10, 24)), 4


def batch(step):
    return torch.randn(24, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def model(name):
    torch.manual_seed(5)
    made = layers.VectorQuantizer(6, 3, decay=None if name == "learned" else 0.7, revive=2 * (name == "revived"),
                                  dtype=torch.float64)
    with torch.no_grad():
        made.weight[4:] += 100  # two codes that nothing is near
    return made


def masked():
    """A network of two masked layers"""
    torch.manual_seed(5)
    layer = lambda K, J: layers.MaskedLinear(K, J, in_degree=torch.arange(K), out_degree=torch.arange(J),
                                             dtype=torch.float64)
    return nn.Sequential(layer(3, 8), nn.Tanh(), layer(8, 3))


def steps(network, p=None):
    """Some steps of a training, on half of each batch in process p of two"""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for step in range(STEPS):
        x = batch(step) if p is None else batch(step)[12 * p : 12 * p + 12]
        optimizer.zero_grad()
        (network(x) - x.flip(1)).square().mean().backward()
        optimizer.step()


def both(folder, script=SCRIPT):
    (folder / "script.py").write_text(script)
    running = [subprocess.Popen([sys.executable, folder / "script.py", __file__.rpartition("/")[0], str(p), folder],
                                stderr=subprocess.PIPE, text=True) for p in range(2)]
    for process in running:
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
    return [torch.load(folder / f"{p}.pt") for p in range(2)]


def alone(name):
    one = model(name)
    optimizer = torch.optim.SGD(one.parameters(), 0.5) if name == "learned" else None
    for step in range(STEPS):
        z_q, index, loss = one(batch(step))
        if optimizer:
            optimizer.zero_grad()
            (loss.sum() / 24).backward()
            optimizer.step()
    return one.state_dict()


def test_codes_of_two_processes_agree_and_are_those_of_one_with_both_batches(tmp_path):
    one, two = both(tmp_path)
    for name in ("averages", "revived", "learned"):
        for key, value in one[name].items():
            assert torch.equal(value, two[name][key]), (name, key)
    for name in ("averages", "learned"):
        for key, value in alone(name).items():  # float64: sums of 24 numbers
            torch.testing.assert_close(one[name][key], value, rtol=0, atol=1e-13)
    given = torch.cat([batch(step) for step in range(STEPS)])
    far = model("revived").weight[4:]
    assert not torch.equal(one["revived"]["weight"][4:], far)
    revived = one["revived"]["total"][4:] / one["revived"]["count"][4:, None]
    assert (torch.cdist(revived, given).amin(1) < 3).all()  # near vectors that were given, not at 100


@pytest.mark.thorough
def test_masked_layers_are_sharded_by_fsdp(tmp_path):
    one, two = both(tmp_path, SHARDED)
    network = masked()
    steps(network)
    for key, value in network.state_dict().items():
        assert torch.equal(one[key], two[key])
        torch.testing.assert_close(one[key], value, rtol=0, atol=1e-13)
