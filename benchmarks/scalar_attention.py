"""
Self-attention over scalar features: its definition against [`ScalarSelfAttention`], forward and backward on the CPU.

```bash
python -m benchmarks.scalar_attention --repeats 20
```
"""

import argparse

import torch
import torch.nn.functional as F

from benchmarks.measure import median_seconds, peak_tensor_bytes
from fusion_rsa_cfn import ScalarSelfAttention


MEBIBYTE = 2**20


def plain_self_attention(attention: ScalarSelfAttention, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The definition, softmax(q kᵀ / √H) v with q, k and v linear in one feature each.

    Args:
        attention ([`ScalarSelfAttention`]): Holds the weights.
        features (`torch.Tensor` of shape `(batch_size, num_features)`)

    Returns:
        The attended features, `(batch_size, num_features)`, and the map, `(batch_size, num_features, num_features)`.
    """
    maps = (attention.query, attention.key, attention.value)
    x = features.unsqueeze(-1)  # (B, N, 1)
    query, key, value = (F.linear(x, each.weight, each.bias) for each in maps)  # (B, N, H), (B, N, H), (B, N, 1)
    weights = torch.softmax(query @ key.mT / attention.attention_size**0.5, dim=-1)  # (B, N, N)
    return (weights @ value).squeeze(-1), weights


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Time and memory of attention over scalar features.")
    parser.add_argument("--num_features", type=int, default=1792, help="N; default: 1024 + 768")
    parser.add_argument("--attention_size", type=int, default=256, help="H; default: that of rsa")
    parser.add_argument("--batch_size", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    attention = ScalarSelfAttention(arguments.attention_size)
    features = torch.randn(arguments.batch_size, arguments.num_features, requires_grad=True)

    def step(forward):
        forward(features)[0].square().sum().backward()
        attention.zero_grad()
        features.grad = None

    functions = {
        "plain": lambda: step(lambda x: plain_self_attention(attention, x)),
        "ours": lambda: step(attention),
    }
    seconds = median_seconds(functions, arguments.repeats)
    memory = {name: peak_tensor_bytes(function) for name, function in functions.items()}
    print(f"N={arguments.num_features} H={arguments.attention_size} B={arguments.batch_size}, forward + backward")
    for name in functions:
        print(f"{name:5}  {1000 * seconds[name]:8.2f} ms  {memory[name] / MEBIBYTE:8.2f} MiB beyond inputs and weights")
    print(f"time ratio {seconds['plain'] / seconds['ours']:.1f}, memory ratio {memory['plain'] / memory['ours']:.1f}")


if __name__ == "__main__":
    main()
