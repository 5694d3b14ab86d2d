"""
The head of `rsa_cfn` at full size, in full and of low rank: parameters, time and memory of a training step on the CPU.

```bash
python -m benchmarks.low_rank --rank 16 --repeats 5
```
"""

import argparse

import torch
import torch.nn.functional as F

from benchmarks.measure import median_seconds, peak_tensor_bytes
from configuration_rsa_cfn import RsaCfnConfig
from fusion_rsa_cfn import FUSION_CLASSES


MEBIBYTE = 2**20
AUDIO_SIZE, TEXT_SIZE = 1024, 768


class TrainingStep:
    """A head with its optimizer; a call is forward, backward and an AdamW step on random embeddings."""

    def __init__(self, rank: int | None, batch_size: int):
        audio_config = {"model_type": "wav2vec2", "hidden_size": AUDIO_SIZE, "num_attention_heads": 16}
        config = RsaCfnConfig(audio_config=audio_config, fusion="rsa_cfn", cross_fusion_rank=rank)
        self.head = FUSION_CLASSES["rsa_cfn"](config)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
        self.embeds = torch.randn(batch_size, AUDIO_SIZE), torch.randn(batch_size, TEXT_SIZE)
        self.labels = torch.randint(config.num_labels, (batch_size,))

    def __call__(self):
        F.cross_entropy(self.head(*self.embeds)[0], self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="The full head of rsa_cfn against one of low rank.")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    ranks = {"full": None, "low rank": arguments.rank}
    # From nothing to the end of a step: weights, gradients, optimizer state and activations.
    memory = {name: peak_tensor_bytes(lambda r=r: TrainingStep(r, arguments.batch_size)()) for name, r in ranks.items()}
    steps = {name: TrainingStep(rank, arguments.batch_size) for name, rank in ranks.items()}
    seconds = median_seconds(steps, arguments.repeats)
    parameters = {name: sum(p.numel() for p in step.head.parameters()) for name, step in steps.items()}
    print(f"rank {arguments.rank}, B={arguments.batch_size}: forward + backward + AdamW")
    for name in ranks:
        print(
            f"{name:8}  {parameters[name]:11,} parameters  {1000 * seconds[name]:8.1f} ms  "
            f"{memory[name] / MEBIBYTE:7.0f} MiB"
        )
    ratios = {"parameters": parameters, "time": seconds, "memory": memory}
    print(", ".join(f"{name} ratio {values['full'] / values['low rank']:.1f}" for name, values in ratios.items()))


if __name__ == "__main__":
    main()
