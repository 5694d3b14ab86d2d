"""The examples: one recording of each emotion, of the prepared demo corpus or of one made for them."""

import soundfile
from datasets import load_from_disk

from configuration_rsa_cfn import EMOTIONS
from demo.examples import write_examples


def test_the_last_utterance_of_each_emotion(examples, prepared_dir):
    assert [example.label for example in examples] == list(EMOTIONS)
    rows = load_from_disk(prepared_dir)["train"]
    for index, example in enumerate(examples):
        last = [row for row in rows if row["label"] == index][-1]
        assert example.text == last["text"]
        assert example.audio.read_bytes() == last["audio"]["bytes"]


def test_without_a_prepared_corpus_one_is_made(tmp_path):
    made = write_examples(tmp_path, tmp_path / "nothing")
    assert [example.label for example in made] == list(EMOTIONS)
    for example in made:
        samples, sampling_rate = soundfile.read(example.audio)
        assert sampling_rate == 16000 and len(samples) > 8000
        assert example.text
