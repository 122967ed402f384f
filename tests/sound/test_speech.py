"""Transcribing: the rule of time stamps by hand, and the whole way through a tiny Whisper of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor
from transformers import WhisperForConditionalGeneration as Whisper

from engine.errors import EngineError
from engine.sound.speech import SpeechModel, timed_tokens, without_repetitions
from engine.timed import Timed
from engine.video import Cancelled
from tests.media import make_clip
from tests.sound.tracks import babble, make_film, silence
from tests.sound.whispers import LANGUAGES, make_whisper

END, ZERO = 50, 100  # the first token that is no text, and the one of time 0


def at(seconds: float) -> int:
    return ZERO + round(seconds / 0.02)


@pytest.mark.parametrize(
    ("tokens", "pieces", "heard"),
    [
        # <0.00> a b <1.50><1.50> c <3.00> end: the last stamp stands alone, so the half minute is done.
        ([at(0), 1, 2, at(1.5), at(1.5), 3, at(3)], [(0.0, 1.5, [1, 2]), (1.5, 3.0, [3])], 30.0),
        # <0.00> a <2.00><2.40> b, cut off: b is heard again from 2.00 on.
        ([at(0), 1, at(2), at(2.4), 2], [(0.0, 2.0, [1])], 2.0),
        # Two stamps at the end: all is whole, and it goes on at the first of the two.
        ([at(1), 1, at(4), at(4)], [(1.0, 4.0, [1])], 4.0),
        # A pause between pieces stays a pause.
        ([at(0), 1, at(1), at(5), 2, at(6), at(6)], [(0.0, 1.0, [1]), (5.0, 6.0, [2])], 6.0),
        # No two in a row: one piece, to the last stamp.
        ([at(2), 1, 2, at(8)], [(2.0, 8.0, [1, 2])], 30.0),
        ([1, 2], [(0.0, 30.0, [1, 2])], 30.0),
        # Control tokens of the prompt are no text.
        ([60, 61, at(0), 1, at(1), 50], [(0.0, 1.0, [1])], 30.0),
        ([], [], 30.0),
        ([at(0), at(0), at(0)], [], 30.0),
        # A model that never gets on is not asked for ever.
        ([at(0), at(0), 1], [], 30.0),
    ],
)
def test_time_stamps_part_what_is_written(
    tokens: list[int], pieces: list[tuple[float, float, list[int]]], heard: float
) -> None:
    found, seconds = timed_tokens(tokens, ZERO, END, 30.0)
    assert [(start, end, words) for start, end, words in found] == [
        (pytest.approx(start), pytest.approx(end), words) for start, end, words in pieces
    ]
    assert seconds == pytest.approx(heard)


def test_no_time_lies_behind_what_was_heard() -> None:
    found, seconds = timed_tokens([at(0), 1, at(29), at(29), 2, at(29.5)], ZERO, END, 4.0)
    assert found[0][1] == 4.0 and seconds == 4.0 and len(found) == 1


def test_what_is_repeated_over_and_over_is_left_out() -> None:
    cues = [Timed(float(i), i + 1.0, "Thanks.") for i in range(9)]
    assert len(without_repetitions([*cues, Timed(9.0, 10.0, "Bye.")])) == 4


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("models") / "whisper-made-up")


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 seconds: talk, half a minute of silence, talk again."""
    wave = np.concatenate((babble(20, 16_000), silence(40, 16_000), babble(10, 16_000)))
    return make_film(tmp_path_factory.mktemp("talk") / "talk.mp4", wave, rate=16_000)


def test_a_checkpoint_of_the_library_writes_lines_with_times(whisper: Path, talk: Path) -> None:
    told: list[float] = []
    model = SpeechModel(whisper, "cpu")
    heard = model.transcribe(talk, progress=lambda done, total: told.append(done / total))
    assert heard.by == "whisper-made-up" and heard.language in LANGUAGES
    assert heard.cues
    assert all(0 <= cue.start <= cue.end <= 70.05 and cue.text for cue in heard.cues)
    assert list(heard.cues) == sorted(heard.cues, key=lambda cue: cue.start)
    # Half a minute without a sound is not asked about: where the first one ends is up to the model, but from second 30
    # on at the latest it hears silence until second 60.
    assert told[0] == 0 and told[-1] == 1 and told == sorted(told)
    assert model.transcribe(talk) == heard  # greedy


def test_its_words_are_those_of_the_model_asked_by_hand(whisper: Path, tmp_path: Path) -> None:
    """Twenty seconds are one half minute: the library's own pipeline of features, prompt and tokens, written out."""
    path = make_film(tmp_path / "a.mov", babble(20, 16_000), rate=16_000, codec="pcm_s16le")
    wave = np.clip(np.rint(babble(20, 16_000) * 32767), -32768, 32767).astype(np.float32) / 32768
    features = WhisperFeatureExtractor.from_pretrained(str(whisper))(wave, sampling_rate=16_000, return_tensors="pt")
    model = Whisper.from_pretrained(str(whisper))
    ids = model.generate(
        features["input_features"], return_timestamps=True, language="de", task="transcribe",
        force_unique_generate_call=True, do_sample=False, max_new_tokens=60,
    )[0]  # fmt: skip
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(whisper))
    zero = model.generation_config.no_timestamps_token_id + 1
    begun, words = 0, []  # the first run of text and the stamp before it
    for token in ids.tolist():
        if token >= zero and words:
            break
        if token >= zero:
            begun = token - zero
        elif token < model.config.eos_token_id:
            words.append(token)
    first = SpeechModel(whisper, "cpu", language="de").transcribe(path).cues[0]
    assert first.text == " ".join(tokenizer.decode(words).split()) and words
    assert first.start == pytest.approx(begun * 0.02, abs=0.006)


def test_a_language_can_be_named_and_an_unknown_one_is_told(whisper: Path, talk: Path) -> None:
    assert SpeechModel(whisper, "cpu", language="zh").transcribe(talk).language == "zh"
    with pytest.raises(EngineError, match=r"knows no language 'fr'; it knows de, en, zh\."):
        SpeechModel(whisper, "cpu", language="fr").check()


def test_without_sound_nothing_is_said_and_work_can_be_stopped(whisper: Path, talk: Path, tmp_path: Path) -> None:
    model = SpeechModel(whisper, "cpu")
    assert model.transcribe(make_clip(tmp_path / "mute.mp4", frames=25)).cues == ()
    with pytest.raises(Cancelled):
        model.transcribe(talk, cancelled=lambda: True)


def test_folders_that_are_none_are_a_sentence(whisper: Path, tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> SpeechModel:
        made = tmp_path / name
        made.mkdir()
        for source in whisper.iterdir():
            (made / source.name).write_bytes(source.read_bytes())
        for file, text in files.items():
            (made / file.replace("_json", ".json")).write_text(text)
        return SpeechModel(made, "cpu")

    with pytest.raises(EngineError, match=r"no config\.json.*--asr"):
        SpeechModel(tmp_path, "cpu").check()
    with pytest.raises(EngineError, match="type 'bert'"):
        folder("bert", config_json=json.dumps({"model_type": "bert"})).check()
    with pytest.raises(EngineError, match="cannot be read"):
        folder("broken", config_json="{").check()
    pickled = folder("pickled")
    (pickled.folder / "model.safetensors").unlink()
    (pickled.folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(EngineError, match="pickled"):
        pickled.check()
    timeless = json.loads((whisper / "generation_config.json").read_text())
    del timeless["no_timestamps_token_id"]
    with pytest.raises(EngineError, match="writes no times"):
        folder("timeless", generation_config_json=json.dumps(timeless)).check()
    cut = folder("cut")
    data = (whisper / "model.safetensors").read_bytes()
    (cut.folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(EngineError, match=r"speech model in .* cannot be read"):
        cut.transcribe(make_film(tmp_path / "a.mp4", babble(1)))
