#!/usr/bin/env bash
# The tables of benchmarks/README.md on a CUDA card, at full size. What follows is for both scripts, such as --size small.
set -euo pipefail
cd "$(dirname "$0")/.."
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
python -m benchmarks.training_step --device cuda --steps 16 "$@"
python -m benchmarks.inference --device cuda --repeats 20 "$@"
