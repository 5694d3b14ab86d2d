"""
Print a Markdown table of the fusions at full size: parameters, and the time of a training step of the head on the CPU.
What the backbones take of a step is shown by benchmarks.training_step.

```bash
python -m scripts.fusion_table
python -m scripts.fusion_table --repeats 0
```
"""

import torch
import torch.nn.functional as F

from benchmarks.measure import markdown_table, median_seconds
from configuration_rsa_cfn import FUSIONS, RsaCfnConfig
from foundation.errors import OneLineParser, run_script
from fusion_rsa_cfn import FUSION_CLASSES, Fusion
from modeling_rsa_cfn import RsaCfnForSequenceClassification


# The sizes of facebook/wav2vec2-large-960h-lv60-self and klue/roberta-base; what is left out is the library's default.
AUDIO_CONFIG = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
TEXT_CONFIG = {
    "model_type": "roberta",
    "vocab_size": 32000,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
}


def full_size_config(fusion: str) -> RsaCfnConfig:
    """The configuration of the paper's model with one fusion."""
    return RsaCfnConfig(audio_config=AUDIO_CONFIG, text_config=TEXT_CONFIG, fusion=fusion)


def head_step_seconds(config: RsaCfnConfig, batch_size: int, repeats: int) -> float:
    """Median seconds of forward and backward of the fusion alone on random encodings of full length."""
    fusion = FUSION_CLASSES[config.fusion](config).train()
    audio_size, text_size = config.audio_config.hidden_size, config.text_config.hidden_size
    audio, text = torch.randn(batch_size, audio_size), torch.randn(batch_size, text_size)
    if not fusion.reads_pooled:
        audio, text = (
            (torch.randn(batch_size, length, size), torch.ones(batch_size, length, dtype=torch.long))
            for length, size in ((config.max_audio_frames, audio_size), (config.max_text_tokens, text_size))
        )
    labels = torch.randint(config.num_labels, (batch_size,))

    def step(fusion: Fusion = fusion):
        F.cross_entropy(fusion(audio, text)[0], labels).backward()
        fusion.zero_grad()

    return median_seconds({config.fusion: step}, repeats)[config.fusion]


def main(argv: list[str] | None = None) -> int:
    parser = OneLineParser(prog="fusion_table", description="A Markdown table of the fusions at full size.")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5, help="measured steps; 0 leaves the column out")
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    rows = []
    for fusion in FUSIONS:
        config = full_size_config(fusion)
        with torch.device("meta"):  # counted without allocating them
            model = RsaCfnForSequenceClassification(config)
        counts = {"head parameters": sum(p.numel() for p in model.fusion.parameters())}
        counts["parameters"] = model.num_parameters()
        rows.append({"fusion": f"`{fusion}`"} | {name: f"{count:,}" for name, count in counts.items()})
        if arguments.repeats:
            seconds = head_step_seconds(config, arguments.batch_size, arguments.repeats)
            rows[-1][f"head step, B = {arguments.batch_size} (ms)"] = f"{1000 * seconds:.1f}"
    print(markdown_table(rows))
    return 0


if __name__ == "__main__":
    run_script("fusion_table", main)
