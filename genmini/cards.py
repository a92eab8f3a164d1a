"""Cards that a kernel's speed is predicted for: what their data sheets and CUDA's guide say of them.

    CARDS["h100"].dram     3.35e12 bytes a second

Sources, by the letters behind each constant:

G  CUDA C++ Programming Guide, "Compute Capabilities", table of technical specifications (warps, blocks, registers and
   shared memory of an SM; four schedulers), "Arithmetic Instructions" (a shuffle of a warp a clock), and
   cuda_occupancy.h, which comes with CUDA
A  NVIDIA A100 Tensor Core GPU Architecture, v1.0, tables 1 and 4; A100 data sheet for the 80 GB of the SXM card
H  NVIDIA H100 Tensor Core GPU Architecture, v1.04, tables 1 to 3, of the SXM5 card; H100 data sheet
H2 NVIDIA H200 data sheet: an H100 with other memory
R  NVIDIA Ada GPU Architecture, v2.02, appendix A, of the GeForce RTX 4090
B  github.com/te42kyfo/gpu-benches, folder gpu-l2-cache: the plateau that this benchmark reaches on an A100, on an H200
   (for both Hoppers) and on an L40 (the chip of the RTX 4090). NVIDIA names a bandwidth of the L2 for the A100 alone,
   5120 bytes a clock or 7.2e12 a second (A), of which the benchmark reaches 75%

Rates are peaks of dense operations at the highest clock; a fused multiply-add counts as two operations.
"""

from dataclasses import dataclass, field

KB = 1024


@dataclass(frozen=True)
class Card:
    name: str
    capability: int  # 80 for 8.0: which machine code it runs
    sms: int
    clock: float  # of the SMs, in 1/s
    dram: float  # bytes a second
    l2: float  # bytes a second
    l2_size: int  # bytes
    fp32: float  # operations a second
    fp64: float
    tensor: dict = field(hash=False)  # operations a second on tensor cores, sums in float32, by format of the factors
    schedulers: int = 4  # of an SM; each issues an instruction of a warp a clock (G)
    warps: int = 64  # at most on an SM at a time (G)
    blocks: int = 32  # (G)
    registers: int = 65536  # of an SM, of 32 bits (G)
    shared: int = 0  # bytes of an SM (G)
    shared_of_block: int = 0  # bytes that a block may take (G)


AMPERE = dict(capability=80, shared=164 * KB, shared_of_block=163 * KB)  # G
HOPPER = dict(capability=90, shared=228 * KB, shared_of_block=227 * KB)  # G
ADA = dict(capability=89, warps=48, blocks=24, shared=100 * KB, shared_of_block=99 * KB)  # G
H = dict(sms=132, clock=1.98e9, l2=9.8e12, l2_size=50 << 20, fp32=66.9e12, fp64=33.5e12,  # H, l2 B
         tensor=dict(f16=989.4e12, bf16=989.4e12, tf32=494.7e12))  # H

CARDS = {
    "a100": Card("A100", sms=108, clock=1.41e9, dram=2.039e12, l2=5.4e12, l2_size=40 << 20,  # A, l2 B
                 fp32=19.5e12, fp64=9.7e12, tensor=dict(f16=312e12, bf16=312e12, tf32=156e12), **AMPERE),  # A
    "h100": Card("H100", dram=3.35e12, **H, **HOPPER),  # H
    "h200": Card("H200", dram=4.8e12, **H, **HOPPER),  # H2
    "rtx4090": Card("RTX 4090", sms=128, clock=2.52e9, dram=1.008e12, l2=5.2e12, l2_size=72 << 20,  # R, l2 B
                    fp32=82.6e12, fp64=1.29e12, tensor=dict(f16=165.2e12, bf16=165.2e12, tf32=82.6e12), **ADA),  # R
}
