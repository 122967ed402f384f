"""Hearing a video: its sound track as samples, how loud it is and where, what is said in it.

sound = measure(path)                                     # loudness, waveform, silence and speech
cues = SpeechModel("models/whisper-small").transcribe(path)   # what is said, with times
"""

from engine.sound.measure import Sound, Span, measure, with_transcript
from engine.sound.read import Track, read_sound
from engine.sound.subtitles import load_subtitles, read_subtitles, write_vtt

__all__ = [
    "Sound",
    "Span",
    "Track",
    "load_subtitles",
    "measure",
    "read_sound",
    "read_subtitles",
    "with_transcript",
    "write_vtt",
]
