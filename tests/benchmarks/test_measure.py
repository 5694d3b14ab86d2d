"""What is measured adds up."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.measure import ProductPeaks, SectionTimer, peak_memory_bytes


class Encoder(nn.Linear):
    def forward(self, x):
        return BaseModelOutput(last_hidden_state=super().forward(x))


def test_products_are_counted_forward_and_backward():
    layer, x = nn.Linear(8, 16), torch.randn(4, 8, requires_grad=True)
    with FlopCounterMode(display=False) as count:
        layer(x).sum().backward()
    assert count.get_total_flops() == 3 * 2 * 4 * 8 * 16
    with FlopCounterMode(display=False) as count, torch.inference_mode():
        layer(x.detach())
    assert count.get_total_flops() == 2 * 4 * 8 * 16


def test_attention_of_the_cpu_is_counted_too():
    query = torch.randn(2, 3, 5, 8)
    with FlopCounterMode(display=False) as count:
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert count.get_total_flops() == 2 * (2 * 2 * 3 * 5 * 5 * 8)


def test_sections_of_a_step_add_up_to_it():
    audio, text = Encoder(512, 512), Encoder(8, 8)
    timer = SectionTimer({"audio": audio, "text": text}, torch.device("cpu"))
    x, y = torch.randn(4096, 512, requires_grad=True), torch.randn(4, 8)
    timer.start()
    start = timer.last
    loss = audio(x).last_hidden_state.mean() + text(y).last_hidden_state.mean()
    timer.end("head")
    timer.backward(loss)
    assert sum(timer.seconds.values()) == pytest.approx(timer.last - start)
    assert set(timer.seconds) == {"audio", "text", "head"}
    assert timer.seconds["audio"] > timer.seconds["text"]


def test_peak_memory_holds_what_was_freed_again():
    device = torch.device("cpu")
    before = peak_memory_bytes(device, lambda: None)
    assert peak_memory_bytes(device, lambda: torch.ones(50 * 2**20)) - before > 150 * 2**20
    assert peak_memory_bytes(device, lambda: None) - before < 50 * 2**20


def test_the_peak_under_autocast_is_that_of_the_faster_type():
    peaks = ProductPeaks(torch.device("cpu"), {torch.bfloat16})
    peaks.values = {torch.float32: [80e9, 100e9, 90e9], torch.bfloat16: [20e9, 25e9, 15e9]}
    assert peaks[torch.float32] == peaks[torch.bfloat16] == 90e9
    peaks.values[torch.bfloat16] = [300e9]
    assert (peaks[torch.float32], peaks[torch.bfloat16]) == (90e9, 300e9)
    assert str(peaks) == "Matrix products: 90 GFLOP/s in torch.float32, 300 GFLOP/s in torch.bfloat16"
