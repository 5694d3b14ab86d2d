"""The baseline computes what the original does, with the weights of a model of ours."""

import numpy as np
import torch

from benchmarks.baseline import PlainBaseline
from benchmarks.clips import benchmark_config, make_processor, make_rows
from modeling_rsa_cfn import RsaCfnForSequenceClassification


@torch.no_grad()
def test_logits_are_ours_without_masks():
    config = benchmark_config("small")
    config.mask_padding = False
    model = RsaCfnForSequenceClassification(config).eval()
    processor = make_processor(config.text_config.vocab_size)
    rows = make_rows(np.array([0.7, 3.0, 8.0]), np.arange(3), config)
    baseline = PlainBaseline(model, processor)
    batch = baseline.collate(baseline.load(rows))
    assert batch["input_values"].shape == (3, 96_000) and batch["input_ids"].shape == (3, 256)
    text = processor(text=[row["text"] for row in rows], return_tensors="pt")
    ours = model(**text, input_values=batch["input_values"], labels=batch.pop("labels")).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(baseline.logits(**batch), ours, atol=1e-4, rtol=0)
