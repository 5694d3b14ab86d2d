"""Why a model answers as it does: what each modality, word and half-second contributed, and where attention goes.
The pictures are drawn without pyplot, so that an app may draw them in any thread."""

from explain.attention import AttentionWeights, collect_attention, draw_attention
from explain.drawing import draw_explanation
from explain.prediction import Explanation, explain


__all__ = ["AttentionWeights", "Explanation", "collect_attention", "draw_attention", "draw_explanation", "explain"]
