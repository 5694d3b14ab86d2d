"""One prediction taken apart: its probabilities with either modality withheld, and the relevance of words and time.
Relevance is gradient × input (Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713)."""

import math
import re
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import torch

from processing_rsa_cfn import LETTERS_PER_TOKEN, crop_audio, decode_audio, opened


SEGMENT_SECONDS = 0.5
NOT_FINITE = "the model's outputs aren't finite; give a model whose weights are, or another recording."


@dataclass
class Explanation:
    """What was given, what the model made of it, and why: a positive relevance speaks for the target."""

    labels: list[str]
    target: str  # the class that is explained
    probabilities: np.ndarray  # (num_labels,), with everything that was given
    withheld: dict[str, np.ndarray]  # without "audio" and "text"; empty unless both are given and read
    waveform: np.ndarray  # (num_samples,), the part of the clip that was read, not normalised; of none 0 samples
    sampling_rate: int  # in Hz
    start: float  # seconds into the clip at which the waveform starts
    segment_relevance: np.ndarray  # (num_segments,), of each half-second, of which the last may be shorter
    words: list[str]  # between spaces, that were read
    word_relevance: np.ndarray  # (num_words,), on the same scale
    num_words_left: int  # not read, most often those behind `max_text_tokens`
    # Where `cross_attention` or `attentive_statistics` looks in the waveform, `(num_frames,)`, adding up to 1, and in
    # the words, `(num_words,)`, where special tokens have the rest; of others no frames, and 0.
    frame_attention: np.ndarray
    word_attention: np.ndarray
    # Maps of the fusion, `(features, features)`, rows of which add up to 1: one of `rsa`, of audio and of text in
    # `rsa_cfn` and `hybrid_fusion`, none of others.
    attentions: tuple[np.ndarray, ...]

    @property
    def segment_bounds(self) -> np.ndarray:
        """Where each segment starts and ends in the clip, in seconds: `(num_segments, 2)`."""
        starts = SEGMENT_SECONDS * np.arange(len(self.segment_relevance))
        ends = np.minimum(starts + SEGMENT_SECONDS, len(self.waveform) / self.sampling_rate)
        return self.start + np.stack([starts, ends], axis=1)

    @property
    def contributions(self) -> dict[str, float]:
        """For each modality the probability of the target minus that without the modality; empty as `withheld`."""
        index = self.labels.index(self.target)
        return {name: float(self.probabilities[index] - without[index]) for name, without in self.withheld.items()}


def explain(model, processor, audio=None, text: str | None = None, target: str | None = None) -> Explanation:
    """Explain one prediction.

    The relevance of a sample, of a frame's features or of a token's embedding is its product with the gradient of the
    target's logit, less the mean of all logits: the share of each in the score, to first order. Relevances are summed
    over a half-second and over the tokens of a word; those of special tokens belong to no word. They tell of small
    changes, and what is withheld of the largest; the two may well differ in sign.

    The model is in evaluation mode, its processor has a fast tokenizer, and a clip is given in any form that this
    takes. The most probable class is explained where there is no `target`. A ValueError says what can't be used: of
    what is given, or of a model whose outputs or gradients aren't finite.
    """
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    if target is not None and target not in labels:
        raise ValueError(f"target={target!r} is no class of the model; give one of {', '.join(labels)}.")
    modalities = model.fusion.modalities
    sampling_rate = processor.feature_extractor.sampling_rate
    waveform, start = np.zeros(0, dtype=np.float32), 0.0
    if audio is not None and "audio" in modalities:
        waveform, start = _decode(processor, audio)
    text = text if "text" in modalities else None
    if not len(waveform) and text is None:
        raise ValueError(f"fusion={model.config.fusion!r} reads {' and '.join(modalities)}, and none is given.")
    most_letters = LETTERS_PER_TOKEN * processor.max_text_tokens
    if text is not None and len(text) > most_letters:
        raise ValueError(f"text has {len(text):,} letters; give at most {most_letters:,}.")
    inputs = _prepare(model, processor, waveform, text)
    probabilities, relevance, attention, attentions, index = _differentiate(model, inputs, labels, target)
    words, word_relevance, word_attention, num_words_left = [], np.zeros(0), np.zeros(0), 0
    if text is not None:
        words, word_relevance, num_words_left = _sum_over_words(processor, text, relevance["text"])
        _, word_attention, _ = _sum_over_words(processor, text, attention.get("text", 0 * relevance["text"]))
    return Explanation(
        labels=labels,
        target=labels[index],
        probabilities=probabilities,
        withheld=_withhold(model, processor, waveform, text),
        waveform=waveform,
        sampling_rate=sampling_rate,
        start=start,
        segment_relevance=_sum_over_segments(relevance.get("audio", np.zeros(0)), len(waveform) / sampling_rate),
        words=words,
        word_relevance=word_relevance,
        num_words_left=num_words_left,
        frame_attention=attention.get("audio", np.zeros(0)),
        word_attention=word_attention,
        attentions=attentions,
    )


def _decode(processor, audio) -> tuple[np.ndarray, float]:
    """The part of a clip that the model is given, and the second at which it starts."""
    sampling_rate = processor.feature_extractor.sampling_rate
    with opened(audio) as source:
        clip = decode_audio(source, None, sampling_rate)
    kept = crop_audio(range(len(clip)), round(processor.max_audio_seconds * sampling_rate), processor.audio_crop)
    return clip[kept.start : kept.stop], kept.start / sampling_rate


def _prepare(model, processor, waveform: np.ndarray, text: str | None) -> dict[str, torch.Tensor]:
    inputs = processor(audio=[waveform] if len(waveform) else None, text=text, return_tensors="pt")
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def _differentiate(model, inputs, labels, target):
    """Probabilities `(C,)`, gradient × input of each modality that is given, where attention over time goes in it,
    attention maps over features, and the target's index."""
    leaves: dict[str, torch.Tensor] = {}

    def keep(module, arguments, embeddings):
        leaves["text"] = embeddings.detach().requires_grad_()
        return leaves["text"]

    name = model.config.audio_input
    if name in inputs:
        leaves["audio"] = inputs[name] = inputs[name].detach().requires_grad_()
    embeddings = model.get_input_embeddings() or torch.nn.Identity()  # which nothing calls
    with embeddings.register_forward_hook(keep), torch.enable_grad():
        output = model(**inputs, output_attentions=True)
        logits = output.logits[0].float()  # (C,)
        index = logits.argmax().item() if target is None else labels.index(target)
        gradients = torch.autograd.grad(logits[index] - logits.mean(), list(leaves.values()))
    relevance = {
        name: (gradient * leaf.detach())[0].double().cpu().numpy()
        for (name, leaf), gradient in zip(leaves.items(), gradients)
    }
    # Over the embedding of a token and the features of a frame; a sample has none.
    relevance = {name: values.reshape(len(values), -1).sum(axis=1) for name, values in relevance.items()}
    # It takes two modalities that one attends to the other.
    names = leaves if model.fusion.reads_pooled or len(leaves) == 2 else ()
    maps = {name: torch.cat(found, dim=1) for name in names if (found := getattr(output, f"{name}_attentions"))}
    attention = {name: of[0].detach().float().mean(dim=0).cpu().numpy() for name, of in maps.items()}  # (length,) each
    attentions = tuple(attention[0].detach().float().cpu().numpy() for attention in output.attentions)
    if not all(np.isfinite(values).all() for values in relevance.values()):
        raise ValueError(NOT_FINITE)
    return _probabilities(output), relevance, attention, attentions, index


@torch.no_grad()
def _withhold(model, processor, waveform: np.ndarray, text: str | None) -> dict[str, np.ndarray]:
    if not len(waveform) or text is None:
        return {}
    silent = waveform[:0]
    kept = {"audio": _prepare(model, processor, silent, text), "text": _prepare(model, processor, waveform, None)}
    return {name: _probabilities(model(**inputs)) for name, inputs in kept.items()}


def _probabilities(output) -> np.ndarray:
    """Of each class, `(C,)`; a `ValueError` where a logit isn't finite."""
    logits = output.logits[0].detach().float()
    if not logits.isfinite().all():
        raise ValueError(NOT_FINITE)
    return logits.softmax(dim=0).cpu().numpy()


def _sum_over_segments(relevance: np.ndarray, seconds: float) -> np.ndarray:
    """Of the samples, or the frames of features, that so many seconds became, `(length,)` → `(num_segments,)`."""
    if not len(relevance):
        return np.zeros(0)
    starts = np.arange(math.ceil(seconds / SEGMENT_SECONDS)) * SEGMENT_SECONDS * len(relevance) / seconds
    return np.add.reduceat(relevance, starts.round().astype(int).clip(max=len(relevance) - 1))


def _sum_over_words(processor, text: str, relevance: np.ndarray) -> tuple[list[str], np.ndarray, int]:
    """The words of a text that have tokens; the relevance of its tokens, `(num_tokens,)`, summed over each of them:
    `(num_words,)`; and the number of the other words."""
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} doesn't tell where its tokens are; give a fast tokenizer.")
    prefix, options = processor.text_prefix, {"max_length": processor.max_text_tokens, "return_offsets_mapping": True}
    encoded = tokenizer(prefix + text, truncation=True, padding=False, **options)
    matches = list(re.finditer(r"\S+", text))
    ends = [match.end() for match in matches]
    sums: dict[int, float] = {}
    for (start, end), value in zip(encoded["offset_mapping"], relevance):  # behind which a pad may stand
        # A token may begin with the space before its word, one of the prefix before the text; a special one is empty.
        start, end = start - len(prefix), end - len(prefix)
        place = bisect_right(ends, start)
        if start < end and place < len(matches) and matches[place].start() < end:
            sums[place] = sums.get(place, 0.0) + value
    places = sorted(sums)
    words = [matches[place].group() for place in places]
    return words, np.array([sums[place] for place in places]), len(matches) - len(places)
