"""Tests of the comparison of predictions with a card: of what needs none."""

import predictions
import pytest
import torch

from genmini import counting, predict

NCU = '''==PROF== Connected to process 7
==PROF== Disconnected from process 7
"ID","Process ID","Kernel Name","Block Size","dram__bytes_read.sum","dram__bytes_write.sum"
"","","","","byte","byte"
"0","7","void couple_chunks<float, 4, false>(const T1 *, long)","(256, 1, 1)","1,024","512"
"1","7","void couple_chunks<float, 4, true>(const T1 *, long)","(256, 1, 1)","1,000","0"
"2","7","sum_chunks(const double *, float *)","(32, 1, 1)","64","32"
'''


@pytest.mark.parametrize("name, kernel", [
    ("void couple_chunks<float, 4>(float const*, long)", "couple_chunks"), ("backward_wide<float>", "backward_wide"),
    ("void at::native::elementwise_kernel<4>(int)", "elementwise_kernel"), ("Memcpy HtoD (Pageable)", "Memcpy"),
    ("void (anonymous namespace)::screen<int>(int)", "screen"),
])
def test_a_kernel_is_known_by_its_bare_name(name, kernel):
    assert predictions.base(name) == kernel


def test_counters_of_ncu_are_summed_over_launches():
    found = predictions.sums(NCU, ["dram__bytes_read.sum", "dram__bytes_write.sum"])
    assert found == {"couple_chunks": {"dram__bytes_read.sum": 2024, "dram__bytes_write.sum": 512},
                     "sum_chunks": {"dram__bytes_read.sum": 64, "dram__bytes_write.sum": 32}}


@pytest.mark.parametrize("device, card", [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA A100-SXM4-80GB", "A100"),
                                          ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("NVIDIA H200", "H200")])
def test_the_card_is_told_by_the_name_of_the_device(device, card):
    assert predictions.card_of(device).name == card
    with pytest.raises(SystemExit, match="nothing is predicted for Tesla T4: genmini/cards.py has a100, h100"):
        predictions.card_of("Tesla T4")


def test_what_is_predicted_stands_beside_what_was_measured(monkeypatch):
    card, sizes = predict.named("h100")[0], dict(N=4, D=64)
    counted = counting.count("affine_coupling", "naive", **sizes)
    kernels = [predictions.base(launch.kernel) for launch in counted.launches]
    monkeypatch.setattr(predictions, "measured", lambda *_: dict.fromkeys(kernels, 1.0))
    of_first = counted.launches[0].counters
    monkeypatch.setattr(predictions, "by_ncu", lambda *_: {kernels[0]: dict.fromkeys(of_first, 2e6)})
    rows = list(predictions.compared("affine_coupling", "naive", sizes, card))
    assert {row["kernel"] for row in rows} == {*kernels}
    times = [row for row in rows if row["what"] == "seconds, at least"]
    assert len(times) == len({*kernels}) and all(float(row["ratio"]) > 1e3 for row in times)
    (read,) = [row for row in rows if row["what"] == "dram__bytes_read.sum"]
    assert float(read["predicted"]) == of_first["dram__bytes_read.sum"] and read["measured"] == "2e+06"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: it would compare")
def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr("sys.argv", ["predictions.py"])
    with pytest.raises(SystemExit, match="on an NVIDIA GPU, and there is none here"):
        predictions.main()
