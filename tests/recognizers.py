"""Random speech recognisers: a wav2vec2 with CTC and a Whisper."""

import copy
import json

from transformers import (
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)


def make_recognizers(folder, audio_config):
    """Folders of them, `ctc` and `whisper`."""
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"정말반가워요"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder / "ctc")
    config = copy.deepcopy(audio_config)
    config.update({"vocab_size": len(vocabulary), "pad_token_id": 0})
    Wav2Vec2ForCTC(config).save_pretrained(folder / "ctc")
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"]
    vocabulary = {token: index for index, token in enumerate([*"abcdefgh", *special])}
    WhisperTokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>").save_pretrained(folder / "whisper")
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder / "whisper")
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": 8}
    tokens = {"pad_token_id": 8, "eos_token_id": 8, "bos_token_id": 8, "decoder_start_token_id": 9}
    whisper = WhisperForConditionalGeneration(
        WhisperConfig(**sizes, **tokens, vocab_size=len(vocabulary), begin_suppress_tokens=None, max_length=8)
    )
    whisper.generation_config.update(max_length=8, suppress_tokens=[8, 9, 10, 11])
    whisper.save_pretrained(folder / "whisper")
    return folder
