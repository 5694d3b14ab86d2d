"""The plain baseline: what the original code computes, and how, with the weights of a model of ours."""

import torch
import torch.nn.functional as F

from fusion_rsa_cfn import ScalarSelfAttention
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from processing_rsa_cfn import RsaCfnProcessor, decode_audio


def plain_self_attention(attention: ScalarSelfAttention, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, softmax(q kᵀ / √H) v with q, k and v linear in one feature each, with the weights of `attention`:
    the attended features, `(batch_size, num_features)`, and the map, `(batch_size, num_features, num_features)`."""
    maps = (attention.query, attention.key, attention.value)
    x = features.unsqueeze(-1)  # (B, N, 1)
    query, key, value = (F.linear(x, each.weight, each.bias) for each in maps)  # (B, N, H), (B, N, H), (B, N, 1)
    weights = torch.softmax(query @ key.mT / attention.attention_size**0.5, dim=-1)  # (B, N, N)
    return (weights @ value).squeeze(-1), weights


class PlainBaseline:
    """`rsa_cfn` written down as it is defined, over the modules of a model with eager attention: the weights exist
    once. Audio is padded to 6 s and goes without a mask, text is padded to 256 tokens, the means run over the padding,
    both encoders attend eagerly, and the attention over scalars builds its queries, its keys and its map."""

    def __init__(self, model: RsaCfnForSequenceClassification, processor: RsaCfnProcessor):
        self.model = model
        self.processor = processor

    def load(self, rows: list[dict]) -> list[dict]:
        """The rows with their waveforms decoded: everything is in memory before training starts."""
        rate = self.processor.feature_extractor.sampling_rate
        return [{**row, "audio": decode_audio(row["audio"], None, rate)} for row in rows]

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """`input_values` `(batch_size, 96000)`, `input_ids` and mask `(batch_size, 256)`, `labels` `(batch_size,)`."""
        processor, options = self.processor, {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        rate = processor.feature_extractor.sampling_rate
        audio = processor.feature_extractor(
            [row["audio"] for row in rows],
            sampling_rate=rate,
            max_length=round(processor.max_audio_seconds * rate),
            return_attention_mask=False,
            **options,
        )
        text = processor.tokenizer([row["text"] for row in rows], max_length=processor.max_text_tokens, **options)
        return {
            "input_values": audio["input_values"],
            "input_ids": text["input_ids"],
            "attention_mask": text["attention_mask"],
            "labels": torch.tensor([row["label"] for row in rows]),
        }

    def logits(self, input_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Tensors of [`collate`] → logits `(batch_size, num_labels)`."""
        audio = self.model.audio_model(input_values).last_hidden_state.mean(dim=1)  # (B, A)
        text = self.model.text_model(input_ids, attention_mask=attention_mask).last_hidden_state.mean(dim=1)  # (B, T)
        fusion = self.model.fusion
        audio, text = fusion.audio_projection(audio), fusion.text_projection(text)  # (B, P)
        audio = fusion.audio_norm(plain_self_attention(fusion.audio_attention, audio)[0] + audio)
        text = fusion.text_norm(plain_self_attention(fusion.text_attention, text)[0] + text)
        one = audio.new_ones(len(audio), 1)
        audio, text = torch.cat([one, audio], dim=1), torch.cat([one, text], dim=1)  # (B, P + 1)
        crossed = torch.bmm(audio.unsqueeze(2), text.unsqueeze(1)).flatten(1)  # (B, (P + 1)²)
        block = fusion.cross_network.residual
        residual = block.dropout(F.relu(block.dense(crossed)))  # (B, R)
        update = block.dropout(F.relu(block.output(torch.cat([crossed, residual], dim=1))))  # (B, (P + 1)²)
        hidden_states = fusion.dropout(F.relu(fusion.cross_network.dense(crossed + update)))  # (B, R)
        return fusion.classifier_head(hidden_states)

    def loss(self, labels: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        """Tensors of [`collate`] → mean cross entropy."""
        return F.cross_entropy(self.logits(**inputs).float(), labels)
