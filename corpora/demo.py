"""A made-up corpus in the shape of KEMDy20, for trying the whole road from folder to scores without the licensed data.
Words and voice each tell only part of the emotion, so a model that uses both hears more than one that uses either."""

import csv
import dataclasses
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile

from audio_rsa_cfn import SAMPLING_RATE
from corpora import EMOTIONS


NUM_SCRIPTS = 6
RATERS = ("01F", "02M", "03M", "04F", "05M", "06F", "07F", "08M", "09F", "10M")

# The order in which the corpus joins tied labels, under the corpus's own spelling of disgust.
TIE_ORDER = ("happy", "surprise", "angry", "neutral", "disgust", "fear", "sad")
CORPUS_SPELLING = {emotion: emotion for emotion in TIE_ORDER} | {"disgust": "disqust"}

# Each emotion has one partner whose words it shares and another whose voice it shares: crossing the two names it.
TEXT_PAIRS = (("happy", "sad"), ("surprise", "fear"), ("angry", "disgust"))
VOICE_PAIRS = (("happy", "surprise"), ("sad", "disgust"), ("angry", "fear"))

# (what the words say, what the voice says, how many of 25 emotional utterances do so).
CUE_SHARES = (
    ("pair", "pair", 12),
    ("own", "neutral", 4),
    ("neutral", "own", 3),
    ("pair", "own", 2),
    ("own", "pair", 3),
    ("own", "own", 1),
)

# Mean valence and arousal on the five-point scale.
RATINGS = ((3.0, 3.2), (3.9, 3.6), (2.1, 3.8), (3.1, 3.5), (2.3, 2.7), (2.2, 3.6), (2.1, 3.1))
VALENCE_AROUSAL = dict(zip(EMOTIONS, RATINGS))

# Past-tense stems, so that every ending below fits every one of them and no ending gives an emotion away.
PREDICATES = {
    ("neutral",): (
        "두 번 봤, 끝까지 들었, 집에 갔, 얘기를 했, 커피를 마셨, 시간이 좀 걸렸, 내용을 적었, 자리에 앉았, "
        "사진을 찍었, 일찍 잤, 옷을 갈아입었, 밥을 먹었, 설명을 들었, 다음 걸 골랐, 창문을 닫았, 문자를 보냈"
    ),
    ("happy",): "행복했, 기뻤, 기분이 좋았, 웃음이 나왔, 즐거웠, 신났, 뿌듯했, 재밌었",
    ("angry",): "화가 났, 짜증이 났, 열받았, 억울했, 따지고 싶었, 분통이 터졌, 약이 올랐, 괘씸했",
    ("surprise",): "깜짝 놀랐, 예상을 못 했, 눈이 동그래졌, 믿기지가 않았, 뜻밖이었, 상상도 못 했, 어리둥절했, 신기했",
    ("sad",): "슬펐, 우울했, 마음이 아팠, 서러웠, 쓸쓸했, 서글펐, 외로웠, 속상했",
    ("fear",): "무서웠, 겁이 났, 불안했, 두려웠, 도망치고 싶었, 오싹했, 섬뜩했, 걱정이 됐",
    ("disgust",): "역겨웠, 징그러웠, 더러웠, 구역질이 났, 비위가 상했, 찝찝했, 토할 것 같았, 지저분했",
    ("happy", "sad"): (
        "눈물이 났, 가슴이 뭉클했, 코끝이 찡했, 울컥했, 목이 메었, 옛날 생각이 났, 한참 울었, 마음이 찡했"
    ),
    ("surprise", "fear"): (
        "심장이 쿵쾅거렸, 소리를 질렀, 몸이 굳었, 가슴이 철렁했, 숨이 멎을 뻔했, 뒤로 넘어졌, 말이 안 나왔, 얼어붙었"
    ),
    ("angry", "disgust"): (
        "정이 떨어졌, 꼴도 보기 싫었, 참을 수 없었, 인상을 썼, 치가 떨렸, 고개를 돌렸, 얼굴을 찌푸렸, 한숨만 나왔"
    ),
}
TIMES = "어제, 아까, 그날, 주말에, 작년에, 아침에, 저녁에, 지난주에, 며칠 전에, 방학 때, 어릴 때, 그때".split(", ")
SETTINGS = (
    "영화 보고, 그 얘기 듣고, 사진 보고, 친구 만나고, 소식 듣고, 영상 보다가, 동생이랑, 밥 먹다가, 마지막 장면에서, "
    "전화 받고, 버스에서, 회사에서, 학교에서, 길 가다가, 뉴스 보고, 편지 읽고, 엄마랑, 여행 가서, 그 노래 듣고, "
    "시험 끝나고, 병원에서, 메일 보고, 면접 보고, 이사하고"
).split(", ")
ADVERBS = "정말, 진짜, 사실, 솔직히, 좀, 막, 그냥, 저는, 나는".split(", ")
ENDINGS = "어, 어요, 거든, 거든요, 지, 죠, 는데, 는데요, 네, 네요, 습니다, 던 것 같아, 던 것 같아요".split(", ")
# How a turn ends before one of that emotion, whatever its own: a question for each pair of voices.
QUESTIONS = {emotion: ask for pair, ask in zip(VOICE_PAIRS, (" 어땠어", " 그래서", " 왜")) for emotion in pair}
TAGS_BEFORE = ("n/", "b/", "l/", "c/", "아/", "음/")
TAGS_AFTER = ("n/", "b/", "l/", "c/")

# How a voice departs from the speaker's neutral one: pitch level and range in semitones, log speaking rate, effort
# (loudness and brightness), breath noise, cycle-to-cycle roughness, tremor depth, rise at the end in semitones.
VOICES = {
    "neutral": (0.0, 0.0, 0.00, 0.0, 0.0, 0.0, 0.0, 0.0),
    "happy": (5.0, 3.5, 0.20, 0.4, 0.0, 0.0, 0.0, -4.0),
    "surprise": (6.5, 2.0, -0.10, 0.4, 0.4, 0.0, 0.0, 10.0),
    "sad": (-2.0, -1.6, -0.20, -1.3, 1.4, 0.0, 0.0, -1.0),
    "disgust": (-3.5, -0.8, -0.15, -1.1, 0.0, 1.3, 0.0, -2.0),
    "angry": (0.5, 1.5, 0.10, 1.7, 0.0, 0.5, 0.0, -3.0),
    "fear": (2.0, -1.0, 0.25, 1.4, 0.3, 0.0, 1.4, 1.0),
}
VOICE_BLUR = (1.0, 0.4, 0.05, 0.22, 0.10, 0.10, 0.10, 1.0)

# First two formants in Hz of the 21 Hangul vowels, in Unicode order.
# fmt: off
FORMANTS = np.array([
    (800, 1300), (550, 1900), (750, 1500), (550, 2000), (600, 1000), (500, 1900), (550, 1300), (480, 2000), (400, 800),
    (650, 1100), (520, 1700), (480, 1700), (400, 1000), (350, 850), (500, 950), (480, 1600), (320, 1900), (340, 1100),
    (370, 1350), (340, 1800), (300, 2250),
], dtype=np.float64)
# fmt: on
# Noise of the initial consonants, in Unicode order: plosives and fricatives hiss; nasals and liquids do not.
HISS = np.array([3, 4, 0, 3, 4, 0, 0, 2, 3, 7, 9, 0, 5, 6, 8, 5, 5, 4, 4], dtype=np.float64) / 9
FILTER_SIZE = 3072  # room for one syllable and the ringing of its filter
LONGEST_SYLLABLE = 2400
SHORTEST, LONGEST = int(0.9 * SAMPLING_RATE), int(3.0 * SAMPLING_RATE)


@dataclasses.dataclass(frozen=True)
class Speaker:
    """One of the two people of a session: voice and habits of speech."""

    user: int
    sex: str
    pitch: float  # Hz
    formant_scale: float
    rate: float  # syllables per second
    times: tuple[str, ...]
    settings: tuple[str, ...]
    adverbs: tuple[str, ...]
    endings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One row before anything is synthesised. A cue is the tuple of emotions that it leaves possible."""

    session: int
    script: int
    speaker: Speaker
    number: int
    label: str  # joined by ";" for a tie, in this project's spelling
    text_cue: tuple[str, ...]
    voice_cue: tuple[str, ...]
    sentence: str  # what is spoken
    transcript: str  # the sentence with transcription tags
    votes: tuple[str, ...]

    @property
    def segment_id(self):
        who = f"User{self.speaker.user:03d}{self.speaker.sex}"
        return f"Sess{self.session:02d}_script{self.script:02d}_{who}_{self.number:03d}"


def write_corpus(folder, num_utterances=1000, num_sessions=40, seed=2023) -> None:
    """Write a KEMDy20-shaped folder of made-up speech: `annotation/SessXX_eval.csv` and, for every row,
    `wav/SessionXX/<Segment ID>.wav` and `.txt`; files of the same names are overwritten.

    The same arguments give the same bytes. About 30 % of the rows are neutral, 5 % are ties, the rest is even. Session
    `s`, of 1 to 40, holds users `2s - 1` and `2s`. Numbers outside their limits are a `ValueError`, before anything is
    written.
    """
    folder = Path(folder)
    plan = plan_utterances(num_utterances, num_sessions, seed)
    (folder / "annotation").mkdir(parents=True, exist_ok=True)
    for session, utterances in groupby(plan, key=lambda utterance: utterance.session):
        utterances = list(utterances)
        audio_folder = folder / "wav" / f"Session{session:02d}"
        audio_folder.mkdir(parents=True, exist_ok=True)
        filters = {speaker: _vowel_filters(speaker) for speaker in {u.speaker for u in utterances}}
        lengths = []
        for index, utterance in enumerate(utterances):
            rng = _generator(seed, session, 1 + index)
            samples = _synthesise(utterance, filters[utterance.speaker], rng)
            soundfile.write(audio_folder / f"{utterance.segment_id}.wav", samples, SAMPLING_RATE, subtype="PCM_16")
            transcript = (utterance.transcript + "\n").encode("cp949")
            (audio_folder / f"{utterance.segment_id}.txt").write_bytes(transcript)
            lengths.append(len(samples))
        rows = _annotation_rows(utterances, lengths, _generator(seed, session, 0, 1))
        with open(folder / "annotation" / f"Sess{session:02d}_eval.csv", "w", encoding="ascii", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def plan_utterances(num_utterances=1000, num_sessions=40, seed=2023):
    """Decide who says what, how and with which label: a list of `Utterance`, in the order of the annotation files."""
    if not 1 <= num_sessions <= 40:
        raise ValueError(f"num_sessions is {num_sessions}; a KEMDy20 folder holds 1 to 40 sessions.")
    if num_utterances < 2 * num_sessions:
        raise ValueError(f"num_utterances is {num_utterances}; {num_sessions} sessions need {2 * num_sessions}.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give 0 or more.")
    rng = _generator(seed)
    labels = _deal_labels(rng, num_utterances)
    dealt = zip(labels, _deal_cues(rng, labels))
    sizes = [num_utterances // num_sessions + (s < num_utterances % num_sessions) for s in range(num_sessions)]
    utterances, spoken = [], set()
    for session, size in enumerate(sizes, start=1):
        session_rng = _generator(seed, session, 0)
        speakers = [_make_speaker(session_rng, user) for user in (2 * session - 1, 2 * session)]
        counts = {}
        turns = list(zip(_take_turns(session_rng, speakers, size), dealt))
        for number, ((script, speaker), (label, cues)) in enumerate(turns):
            counts[script, speaker] = counts.get((script, speaker), 0) + 1
            answers = [answer.split(";")[0] for (of, _), (answer, _) in turns[number + 1 : number + 2] if of == script]
            question = "".join(QUESTIONS.get(answer, "") for answer in answers)
            sentence = _compose_sentence(session_rng, speaker, cues[0], question, spoken)
            turn = (session, script, speaker, counts[script, speaker])
            transcript, votes = _add_tags(session_rng, sentence), _cast_votes(session_rng, label)
            utterances.append(Utterance(*turn, label, *cues, sentence, transcript, votes))
    return utterances


def total_evaluation(votes):
    """The label most raters gave; equals are joined by ";" in the corpus's order. Spelling as in `votes`."""
    most = max(votes.count(emotion) for emotion in set(votes))
    ordered = [name for emotion in TIE_ORDER for name in dict.fromkeys((emotion, CORPUS_SPELLING[emotion]))]
    return ";".join(name for name in ordered if votes.count(name) == most)


def _generator(seed, *stream):
    """Independent streams by position: what one utterance draws never shifts another."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


def _pick(rng, options):
    return options[int(rng.integers(len(options)))]


def _pick_some(rng, options, count):
    return tuple(options[i] for i in sorted(rng.permutation(len(options))[:count]))


def _deal_labels(rng, num_utterances):
    """Twenty cards at a time hold every emotion twice or more and one tie, so small corpora have all labels too."""
    labels = []
    emotional = [emotion for emotion in EMOTIONS if emotion != "neutral"]
    while len(labels) < num_utterances:
        extra = emotional[len(labels) // 20 % len(emotional)]
        tied = {"neutral", _pick(rng, emotional)} if rng.random() < 0.7 else {*_pick(rng, TEXT_PAIRS + VOICE_PAIRS)}
        tie = ";".join(emotion for emotion in TIE_ORDER if emotion in tied)
        deck = ["neutral"] * 6 + emotional * 2 + [extra, tie]
        labels.extend(deck[i] for i in rng.permutation(len(deck)))
    return labels[:num_utterances]


def _deal_cues(rng, labels):
    """Words and voice of every row. Dealing from a deck keeps each emotion's shares close to `CUE_SHARES`."""
    decks = {emotion: [] for emotion in EMOTIONS}
    cards = [(text, voice) for text, voice, share in CUE_SHARES for _ in range(share)]
    for label in labels:
        emotion = _pick(rng, label.split(";"))
        if not decks[emotion]:
            decks[emotion] = [cards[i] for i in rng.permutation(len(cards))]
        text, voice = decks[emotion].pop() if emotion != "neutral" else ("own", "own")
        yield _cue(text, emotion, TEXT_PAIRS), _cue(voice, emotion, VOICE_PAIRS)


def _cue(kind, emotion, pairs):
    if kind == "pair":
        return next(pair for pair in pairs if emotion in pair)
    return (emotion,) if kind == "own" else ("neutral",)


def _make_speaker(rng, user):
    sex = _pick(rng, ("F", "M"))
    pitch, formant_scale = (205.0, 1.16) if sex == "F" else (118.0, 1.0)
    pitch *= 2 ** (rng.normal(0, 1.5) / 12)
    formant_scale *= np.exp(rng.normal(0, 0.04))
    rate = 9.0 * np.exp(rng.normal(0, 0.05))
    habits = ((TIMES, 5), (SETTINGS, 9), (ADVERBS, 4), (ENDINGS, 5))
    return Speaker(user, sex, pitch, formant_scale, rate, *(_pick_some(rng, *habit) for habit in habits))


def _take_turns(rng, speakers, size):
    """Yield (script, speaker), every script opened by both speakers; fewer scripts when there are too few rows."""
    num_scripts = min(NUM_SCRIPTS, size // 2)
    for script in range(1, num_scripts + 1):
        rows = size // num_scripts + (script <= size % num_scripts)
        first = int(rng.integers(2))
        for turn in range(rows):
            yield script, speakers[(first + turn) % 2] if turn < 2 else _pick(rng, speakers)


def _compose_sentence(rng, speaker, cue, question, spoken):
    """A sentence that nobody has said yet, as far as the speaker's habits allow."""
    for _ in range(50):
        words = [_pick(rng, speaker.settings)]
        words.append(_pick(rng, PREDICATES[cue].split(", ")) + _pick(rng, speaker.endings))
        if rng.random() < 0.3:
            words.insert(0, _pick(rng, speaker.times))
        if rng.random() < 0.3:
            words.insert(-1, _pick(rng, speaker.adverbs))
        sentence = " ".join(words) + question
        if sentence not in spoken:
            break
    spoken.add(sentence)
    return sentence


def _add_tags(rng, sentence):
    """Marks of the transcribers: noise, breath and fillers around the words, doubt and stutter inside."""
    words = sentence.split(" ")
    words[-1] += _pick(rng, (".", ".", ""))
    if rng.random() < 0.06:
        words[0] += "*"
    if rng.random() < 0.06:
        words.insert(0, words[0][0] + "+")
    if rng.random() < 0.15:
        words.insert(0, _pick(rng, TAGS_BEFORE))
    if rng.random() < 0.15:
        words.append(_pick(rng, TAGS_AFTER))
    return " ".join(words)


def _cast_votes(rng, label):
    """Ten votes whose plurality is `label`: the doubters hear no emotion or one that shares words or voice with it."""
    winners = label.split(";")
    share = int(rng.integers(5, 11)) if len(winners) == 1 else int(rng.integers(4, 6))
    votes = winners * share
    partners = {emotion for pair in TEXT_PAIRS + VOICE_PAIRS for emotion in pair if set(winners) & set(pair)}
    # Neutral rows are doubted in favour of anything. No doubt may win: each may fill `share - 1` places and no more.
    likely = partners | {"neutral"} if partners else set(EMOTIONS)
    doubts = [emotion for emotion in EMOTIONS if emotion in likely - set(winners)] * (share - 1)
    votes += [doubts[i] for i in rng.permutation(len(doubts))[: len(RATERS) - len(votes)]]
    return tuple(votes[i] for i in rng.permutation(len(votes)))


def _vowel_filters(speaker):
    """Complex responses of shape `(21, FILTER_SIZE // 2 + 1)`: the two formants of each vowel and a fixed third one."""
    delay = np.exp(-2j * np.pi * np.arange(FILTER_SIZE // 2 + 1) / FILTER_SIZE)
    third = np.full((len(FORMANTS), 1), 2700.0)
    centres = np.concatenate([FORMANTS, third], axis=1) * speaker.formant_scale  # (21, 3)
    response = np.ones((len(FORMANTS), len(delay)), dtype=np.complex128)
    for centre, bandwidth in zip(centres.T, (90.0, 120.0, 180.0)):
        radius = np.exp(-np.pi * bandwidth / SAMPLING_RATE)
        cosine = np.cos(2 * np.pi * centre / SAMPLING_RATE)[:, None]
        gain = 1 - 2 * radius * cosine + radius**2  # unit gain at 0 Hz
        response *= gain / (1 - 2 * radius * cosine * delay + radius**2 * delay**2)
    return response


def _synthesise(utterance, filters, rng):
    """Samples of shape `(length,)`, int16: pulses and breath noise, filtered syllable by syllable."""
    # A pair's voice lies halfway between its two; every utterance departs from its target a little.
    target = np.mean([VOICES[emotion] for emotion in utterance.voice_cue], axis=0)
    voice = target + np.array(VOICE_BLUR) * rng.standard_normal(len(target))
    level, spread, rate, effort, breath, rough, tremor, rise = voice
    codes = np.array([ord(c) - 0xAC00 for c in utterance.sentence if "가" <= c <= "힣"])
    initials, vowels, closed = codes // 588, codes % 588 // 28, codes % 28 > 0
    durations = (1 + 0.15 * closed) * np.exp(rng.normal(0, 0.12, len(codes)) - rate) / utterance.speaker.rate
    durations[-1] *= 1.3
    durations *= min(1.0, 2.8 / durations.sum())
    lengths = np.minimum((durations * SAMPLING_RATE).astype(int), LONGEST_SYLLABLE)
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    time = np.arange(total) / SAMPLING_RATE
    pitch = utterance.speaker.pitch * 2 ** (level / 12)
    voiced = _pulses(pitch * 2 ** (_melody(rng, time, starts + lengths // 2, spread, rise) / 12), rough, tremor, rng)
    noise = rng.standard_normal(total)
    syllable = np.repeat(np.arange(len(codes)), lengths)
    place = (np.arange(total) - starts[syllable]) / lengths[syllable]  # 0 to 1 inside each syllable
    onset = np.clip(1 - place / 0.3, 0, 1)
    swell = np.sin(np.pi * np.clip(place, 0.02, 0.98)) ** 0.5
    breathiness = 0.02 + 0.10 * max(breath, 0)
    source = swell * ((1 - 0.5 * min(max(breath, 0), 1)) * voiced + breathiness * noise)
    spoken = _filter_syllables(source, starts, lengths, filters[vowels], effort)
    hiss = np.diff(noise, prepend=0.0) * onset * HISS[initials][syllable]
    spoken[:total] += 0.03 * hiss
    spoken *= 10 ** (0.2 * effort + rng.normal(0, 0.08)) * 0.04
    lead, trail = (int(x) for x in rng.uniform(0.03, 0.10, 2) * SAMPLING_RATE)
    trail = max(trail, SHORTEST - lead - len(spoken))
    samples = np.concatenate([np.zeros(lead), spoken, np.zeros(trail)])[:LONGEST]
    samples += 0.0005 * rng.standard_normal(len(samples))
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)


def _melody(rng, time, centres, spread, rise):
    """Semitones around the speaker's pitch for every sample: a slow fall, an accent per syllable, a turn at the end."""
    depth = max(0.4, 2.0 + spread)
    accents = depth * rng.uniform(-1, 1, len(centres))
    melody = np.interp(time, centres / SAMPLING_RATE, accents) - 1.5 * time
    return melody + rise * np.clip((time - time[-1] + 0.35) / 0.35, 0, 1)


def _pulses(pitch, rough, tremor, rng):
    """Unit-energy glottal pulses, one sample each; roughness shakes the period, tremor swings it six times a second."""
    time = np.arange(len(pitch)) / SAMPLING_RATE
    knots = np.arange(0, time[-1] + 0.02, 0.006)
    shake = np.interp(time, knots, rng.standard_normal(len(knots)))
    swing = np.sin(2 * np.pi * (6.5 * time + rng.random()))
    bend = 0.01 * shake + 0.12 * max(rough, 0) * shake + 0.06 * max(tremor, 0) * swing
    phase = np.cumsum(pitch * (1 + bend) / SAMPLING_RATE)
    ticks = np.diff(np.floor(phase), prepend=0.0) > 0
    fade = 1 + 0.35 * max(tremor, 0) * swing + 0.5 * max(rough, 0) * shake
    return ticks * np.clip(fade, 0, 3) * np.sqrt(SAMPLING_RATE / pitch)


def _filter_syllables(source, starts, lengths, responses, effort):
    """Filter each syllable by its vowel and add the ringing of one into the next; effort tilts the spectrum."""
    pieces = np.zeros((len(starts), FILTER_SIZE))
    for piece, start, length in zip(pieces, starts, lengths):
        piece[:length] = source[start : start + length]
    frequency = np.arange(FILTER_SIZE // 2 + 1) / FILTER_SIZE * SAMPLING_RATE
    tilt = (1 + frequency / 500) ** (-0.9 + 0.6 * effort)
    ringing = np.fft.irfft(np.fft.rfft(pieces) * responses * tilt, n=FILTER_SIZE)
    spoken = np.zeros(len(source) + FILTER_SIZE)
    for piece, start in zip(ringing, starts):
        spoken[start : start + FILTER_SIZE] += piece
    return spoken[: len(source) + 640]


def _annotation_rows(utterances, lengths, rng):
    """The two header rows and one row per utterance: times, the total of the votes, then every rater."""
    blank = " "
    names = ["Total Evaluation", *(f"Eval{rater}" for rater in RATERS)]
    yield ["Numb", "WAV", blank, "Segment ID", *(cell for name in names for cell in (name, blank, blank))]
    yield [blank, "start", "end", blank, *(["Emotion", "Valence", "Arousal"] * len(names))]
    script, start, end = 0, 0, 0  # times in ten-millionths of a second, which makes a sample exactly 625 of them
    for number, (utterance, length) in enumerate(zip(utterances, lengths), start=1):
        if utterance.script != script:
            script, start, end = utterance.script, 0, int(rng.integers(10_000_000, 60_000_000))
        # People start before the other has ended; rows stay in the order of their starts.
        start = max(start + 1_000_000, end + int(rng.integers(-4_000_000, 12_000_000)))
        end = start + length * 625
        votes = [CORPUS_SPELLING[vote] for vote in utterance.votes]
        means = [VALENCE_AROUSAL[vote] for vote in utterance.votes]
        scores = np.clip(np.rint(np.array(means) + 0.5 * rng.standard_normal((len(votes), 2))), 1, 5).astype(int)
        totals = [f"{total / len(votes):g}" for total in scores.sum(axis=0)]
        ratings = [cell for vote, (valence, arousal) in zip(votes, scores) for cell in (vote, valence, arousal)]
        times = [_seconds(start), _seconds(end)]
        yield [number, *times, utterance.segment_id, total_evaluation(votes), *totals, *ratings]


def _seconds(ticks):
    return f"{ticks // 10_000_000}.{ticks % 10_000_000:07d}".rstrip("0").rstrip(".")
