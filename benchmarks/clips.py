"""The paper's model at full size, rows of a corpus as long as KEMDy20's, of noise and random words, and the processor
that reads them."""

import io

import numpy as np
import soundfile
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Wav2Vec2FeatureExtractor
from transformers.trainer_pt_utils import LengthGroupedSampler

from configuration_rsa_cfn import RsaCfnConfig
from processing_rsa_cfn import RsaCfnProcessor


# The sizes of facebook/wav2vec2-large-960h-lv60-self and klue/roberta-base; what is left out is the library's default.
AUDIO_CONFIG = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
AUDIO_CONFIG |= {
    "model_type": "wav2vec2",
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}
TEXT_CONFIG = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
TEXT_CONFIG |= {"model_type": "roberta", "vocab_size": 32000, "max_position_embeddings": 514, "type_vocab_size": 1}
SAMPLING_RATE = 16_000
# Share of the utterances of KEMDy20 that are shorter than these seconds.
DURATIONS = {0.0: 0.66, 0.45: 4.1, 0.74: 7.6, 0.87: 11.0, 0.945: 14.5, 0.976: 18.0, 0.992: 21.4, 1.0: 35.0}
TOKENS_PER_SECOND = 4.2  # about 25 of an utterance of mean length
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
SMALL_CONVOLUTIONS = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}


def benchmark_config(size: str) -> RsaCfnConfig:
    """`rsa_cfn` as it is trained, stem frozen and text without dropout: `"full"`, the paper's size, or `"small"`."""
    audio, text, fields = dict(AUDIO_CONFIG), dict(TEXT_CONFIG), {}
    if size == "small":
        audio |= SMALL | SMALL_CONVOLUTIONS
        text |= SMALL
        fields = {"projection_size": 16, "cross_residual_size": 64}
    text |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    audio["layerdrop"] = 0.0  # every step does all of the work
    return RsaCfnConfig(audio_config=audio, text_config=text, fusion="rsa_cfn", freeze_feature_encoder=True, **fields)


def make_processor(vocab_size: int) -> RsaCfnProcessor:
    """A processor with the paper's limits, whose tokenizer knows the words of [`make_rows`]."""
    words = [*SPECIAL_TOKENS, *(f"w{index}" for index in range(len(SPECIAL_TOKENS), vocab_size))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    feature_extractor = Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE, return_attention_mask=True)
    return RsaCfnProcessor(feature_extractor, tokenizer)


def draw_durations(num_rows: int, seed: int) -> np.ndarray:
    """Durations in seconds, `(num_rows,)`, distributed like those of KEMDy20: 0.66 to 35 s, 6.0 s on average."""
    draws = np.random.default_rng(seed).random(num_rows)
    return np.interp(draws, list(DURATIONS), list(DURATIONS.values()))


def make_rows(durations: np.ndarray, indices: np.ndarray, config: RsaCfnConfig) -> list[dict]:
    """Rows as a prepared dataset has them: noise as the bytes of a file, words in proportion to it, and a class."""
    vocab_size = config.text_config.vocab_size
    rows = []
    for index in indices.tolist():
        generator = np.random.default_rng(index)
        file = io.BytesIO()
        noise = generator.normal(scale=0.1, size=round(durations[index] * SAMPLING_RATE))
        soundfile.write(file, noise.clip(-1, 1), SAMPLING_RATE, format="WAV", subtype="PCM_16")
        num_words = max(1, generator.poisson(durations[index] * TOKENS_PER_SECOND) - 2)
        words = generator.integers(len(SPECIAL_TOKENS), vocab_size, num_words)
        rows.append(
            {
                "audio": {"bytes": file.getvalue(), "path": None},
                "text": " ".join(f"w{word}" for word in words),
                "label": int(generator.integers(config.num_labels)),
            }
        )
    return rows


def epoch_batches(lengths: np.ndarray, batch_size: int, grouped: bool, seed: int) -> list[np.ndarray]:
    """Indices of the whole batches of an epoch, in random order or grouped by length as the Trainer groups them."""
    order = np.random.default_rng(seed).permutation(len(lengths))
    if grouped:
        order = order[list(LengthGroupedSampler(batch_size, lengths=lengths[order].tolist()))]
    return list(order[: len(order) // batch_size * batch_size].reshape(-1, batch_size))


def representatives(batches: list[np.ndarray], lengths: np.ndarray, count: int) -> list[np.ndarray]:
    """`count` batches whose longest rows are at even quantiles of those of all batches, so that few stand for many."""
    by_length = sorted(batches, key=lambda batch: lengths[batch].max())
    return [by_length[int((index + 0.5) / count * len(by_length))] for index in range(count)]
