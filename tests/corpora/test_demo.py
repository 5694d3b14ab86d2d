"""The made-up corpus: same arguments, same bytes; the real corpus's shape; and no cue that names the emotion alone."""

import csv
import hashlib
import re
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configuration_rsa_cfn import EMOTIONS
from corpora.demo import (
    QUESTIONS,
    TEXT_PAIRS,
    TIE_ORDER,
    VALENCE_AROUSAL,
    VOICE_PAIRS,
    plan_utterances,
    total_evaluation,
    write_corpus,
)
from metrics.concordance import estimate_concordance


ROOT = Path(__file__).parents[2]
SEGMENT_ID = re.compile(r"^Sess(\d{2})_script(0[1-6])_User(\d{3})([FM])_(\d{3})$")
HEADER = (
    "Numb,WAV, ,Segment ID,Total Evaluation, , ,Eval01F, , ,Eval02M, , ,Eval03M, , ,Eval04F, , ,Eval05M, , ,"
    "Eval06F, , ,Eval07F, , ,Eval08M, , ,Eval09F, , ,Eval10M, , \n"
    " ,start,end, " + ",Emotion,Valence,Arousal" * 11 + "\n"
)


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_rows(folder):
    for path in sorted((folder / "annotation").iterdir()):
        with open(path, encoding="ascii", newline="") as file:
            yield from ((path, row) for row in list(csv.reader(file))[2:])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_corpus(folder, num_utterances=120, num_sessions=6, seed=7)
    return folder


@pytest.fixture(scope="module")
def plan():
    return plan_utterances()


def test_same_arguments_same_bytes_in_another_process(tmp_path):
    write_corpus(tmp_path / "here", num_utterances=12, num_sessions=3, seed=5)
    code = "import sys; from corpora.demo import write_corpus; write_corpus(sys.argv[1], 12, 3, 5)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], cwd=ROOT, check=True)
    assert digests(tmp_path / "here") == digests(tmp_path / "there")


def test_another_seed_gives_other_words_voices_and_votes(tmp_path):
    write_corpus(tmp_path / "a", num_utterances=12, num_sessions=3, seed=5)
    write_corpus(tmp_path / "b", num_utterances=12, num_sessions=3, seed=6)
    first, second = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert not set(first.values()) & set(second.values())


def test_headers_are_those_of_the_corpus(corpus):
    files = sorted((corpus / "annotation").iterdir())
    assert [path.name for path in files] == [f"Sess{s:02d}_eval.csv" for s in range(1, 7)]
    assert all(path.read_bytes().startswith(HEADER.encode("ascii")) for path in files)
    assert all(b"\r" not in path.read_bytes() and path.read_bytes().endswith(b"\n") for path in files)


def test_every_row_has_one_wav_and_one_transcript_and_there_are_no_strays(corpus):
    expected = set()
    for path, row in read_rows(corpus):
        session, _, user, _, _ = SEGMENT_ID.match(row[3]).groups()
        assert path.name == f"Sess{session}_eval.csv"
        assert (int(user) + 1) // 2 == int(session)
        expected |= {f"wav/Session{session}/{row[3]}.wav", f"wav/Session{session}/{row[3]}.txt"}
    assert len(expected) == 2 * 120
    assert {path.relative_to(corpus).as_posix() for path in (corpus / "wav").rglob("*.*")} == expected


def test_segment_numbers_have_no_gaps_and_both_users_speak_in_all_six_scripts(corpus):
    numbers, sexes = {}, {}
    for _, row in read_rows(corpus):
        session, script, user, sex, number = SEGMENT_ID.match(row[3]).groups()
        numbers.setdefault((session, script, user), []).append(int(number))
        sexes.setdefault(user, set()).add(sex)
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    assert len(numbers) == 6 * 6 * 2
    assert len(sexes) == 12 and all(len(found) == 1 for found in sexes.values())


def test_audio_is_mono_16_khz_16_bit_with_44_byte_header_and_as_long_as_the_row_says(corpus):
    for path, row in read_rows(corpus):
        file = corpus / "wav" / f"Session{path.name[4:6]}" / f"{row[3]}.wav"
        with wave.open(str(file), "rb") as audio:
            assert (audio.getnchannels(), audio.getframerate(), audio.getsampwidth()) == (1, 16_000, 2)
            frames = audio.getnframes()
            samples = np.frombuffer(audio.readframes(frames), dtype="<i2")
        assert file.stat().st_size == 44 + 2 * frames
        assert 0.9 <= frames / 16_000 <= 3.0
        assert float(row[2]) - float(row[1]) == pytest.approx(frames / 16_000, abs=1e-6)
        assert 200 < np.abs(samples.astype(int)).max()
        assert (np.abs(samples.astype(int)) == 32767).mean() < 0.01


def test_times_ascend_within_a_script_and_some_utterances_overlap(corpus):
    rows = [(path, row[3][:15], float(row[1]), float(row[2])) for path, row in read_rows(corpus)]
    neighbours = [(a, b) for a, b in zip(rows, rows[1:]) if a[:2] == b[:2]]
    assert all(a[2] < b[2] for a, b in neighbours)
    assert 0.05 < np.mean([b[2] < a[3] for a, b in neighbours]) < 0.5


def test_transcripts_are_one_line_of_cp949_and_some_carry_tags(corpus):
    texts = [path.read_bytes().decode("cp949") for path in (corpus / "wav").rglob("*.txt")]
    assert all(text.endswith("\n") and text.count("\n") == 1 and re.search("[가-힣]", text) for text in texts)
    assert 0.1 < np.mean([bool(re.search(r"[nblc]/|\*|\+", text)) for text in texts]) < 0.6


def test_totals_are_the_plurality_of_ten_votes_and_means_of_ten_ratings(corpus):
    order = ["happy", "surprise", "angry", "neutral", "disqust", "fear", "sad"]
    for _, row in read_rows(corpus):
        assert len(row) == 37
        counts = Counter(row[7::3])
        assert sum(counts.values()) == 10 and set(counts) <= set(order)
        assert row[4] == ";".join(name for name in order if counts[name] == max(counts.values()))
        for column in (5, 6):
            ratings = [int(cell) for cell in row[column + 3 :: 3]]
            assert len(ratings) == 10 and set(ratings) <= {1, 2, 3, 4, 5}
            assert row[column] == f"{sum(ratings) / 10:g}"


def test_valence_and_arousal_follow_the_emotion(corpus):
    rows = [row for _, row in read_rows(corpus) if ";" not in row[4]]
    for place, at_least in enumerate((0.7, 0.5)):
        values = [float(row[5 + place]) for row in rows]
        told = [VALENCE_AROUSAL[row[4].replace("disqust", "disgust")][place] for row in rows]
        assert estimate_concordance(np.array([values, told]))[0] > at_least


def test_total_joins_ties_in_the_order_of_the_corpus():
    assert total_evaluation(["neutral"] * 4 + ["happy"] * 4 + ["sad"] * 2) == "happy;neutral"
    assert total_evaluation(["sad", "disqust", "neutral"] * 3 + ["fear"]) == "neutral;disqust;sad"
    assert total_evaluation(["fear"] * 10) == "fear"


def test_labels_of_the_default_corpus(plan):
    labels = Counter(utterance.label for utterance in plan)
    ties = {label: count for label, count in labels.items() if ";" in label}
    assert len(plan) == 1000 and {utterance.session for utterance in plan} == set(range(1, 41))
    assert 0.03 <= sum(ties.values()) / 1000 <= 0.07
    assert labels["neutral"] == 300
    assert all(100 <= labels[emotion] <= 115 for emotion in EMOTIONS if emotion != "neutral")
    assert all(label == ";".join(e for e in TIE_ORDER if e in label.split(";")) for label in ties)
    assert all(utterance.label == total_evaluation(list(utterance.votes)) for utterance in plan)


def test_words_and_voice_name_the_emotion_together_but_neither_does_alone(plan):
    emotional = [u for u in plan if u.label in EMOTIONS and u.label != "neutral"]
    assert 0.25 < np.mean([u.text_cue == (u.label,) for u in emotional]) < 0.4
    assert 0.18 < np.mean([u.voice_cue == (u.label,) for u in emotional]) < 0.4
    for utterance in emotional:
        cues = [set(cue) for cue in (utterance.text_cue, utterance.voice_cue) if cue != ("neutral",)]
        assert set.intersection(*cues) == {utterance.label}
    neutral = [u for u in plan if u.label == "neutral"]
    assert all(u.text_cue == u.voice_cue == ("neutral",) for u in neutral)


def test_every_pair_of_words_and_voice_crosses_in_one_emotion_at_most():
    crossings = [set(text) & set(voice) for text in TEXT_PAIRS for voice in VOICE_PAIRS]
    assert all(len(crossing) <= 1 for crossing in crossings)
    assert set().union(*crossings) == set(EMOTIONS) - {"neutral"}


def recall_of_best_guess(plan, cue_of):
    guesses = {}
    for utterance in [u for u in plan if u.label in EMOTIONS]:
        guesses.setdefault(cue_of(utterance), Counter())[utterance.label] += 1
    recall = []
    for emotion in EMOTIONS:
        hits = sum(c[emotion] for c in guesses.values() if c.most_common(1)[0][0] == emotion)
        recall.append(hits / sum(c[emotion] for c in guesses.values()))
    return np.mean(recall)


def test_best_guess_from_the_words_or_the_voice_alone_is_wrong_for_many(plan):
    assert recall_of_best_guess(plan, lambda u: u.text_cue) < 0.75
    assert recall_of_best_guess(plan, lambda u: u.voice_cue) < 0.75
    assert recall_of_best_guess(plan, lambda u: (u.text_cue, u.voice_cue)) == 1


def test_the_turn_before_tells_what_the_words_leave_open_and_nothing_of_its_own_emotion(plan):
    def question(utterance):
        return next((asked for asked in QUESTIONS.values() if utterance.sentence.endswith(asked)), None)

    before = {}
    for first, second in zip(plan, plan[1:]):
        if (first.session, first.script) == (second.session, second.script):
            before[second.segment_id] = question(first)
        else:
            assert question(first) is None
    alone = recall_of_best_guess(plan, lambda u: u.text_cue)
    assert recall_of_best_guess(plan, lambda u: (u.text_cue, before.get(u.segment_id))) > alone + 0.15
    assert recall_of_best_guess(plan, lambda u: (u.text_cue, question(u))) < alone + 0.05


def test_held_out_sessions_share_no_sentence_and_endings_tell_nothing(plan):
    training = {u.sentence for u in plan if u.session <= 32}
    held_out = [u.sentence for u in plan if u.session > 32]
    assert np.mean([sentence in training for sentence in held_out]) < 0.02
    polite = {emotion: [] for emotion in EMOTIONS}
    for utterance in plan:
        if utterance.label in EMOTIONS:
            polite[utterance.label].append(utterance.sentence.endswith(("요", "죠", "니다")))
    shares = [np.mean(found) for found in polite.values()]
    assert max(shares) - min(shares) < 0.25


@pytest.mark.parametrize("seed", [0, 1, 2023])
def test_forty_utterances_of_four_sessions_hold_all_labels(seed):
    plan = plan_utterances(num_utterances=40, num_sessions=4, seed=seed)
    assert Counter(utterance.session for utterance in plan) == {1: 10, 2: 10, 3: 10, 4: 10}
    assert set(EMOTIONS) <= {utterance.label for utterance in plan}
    assert len({utterance.segment_id for utterance in plan}) == 40
    assert all(len({u.speaker.user for u in plan if u.session == s}) == 2 for s in range(1, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_sessions": 41}, "num_sessions is 41; .* 1 to 40"),
        ({"num_sessions": 0}, "num_sessions is 0"),
        ({"num_utterances": 79}, "num_utterances is 79; 40 sessions need 80"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_corpus(tmp_path / "corpus", **arguments)
    assert not (tmp_path / "corpus").exists()
