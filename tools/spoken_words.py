"""Words spoken by espeak-ng as small spectrograms: what the keyword model of ``models/`` is trained and tested on.

Each recording is one word by one voice at one speed and one pitch, at a random place of a second of noise. Voices of the test are not among those
of the training. A recording is stored as ``uint8`` of shape (FRAMES, BANDS): the energy of bands of equal width on the mel scale, from -40 to 50
decibels in steps of 90 / 255.

    apt-get install espeak-ng
"""

import io
import subprocess
import wave
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
TRAINED = (
    "",
    "m1",
    "m3",
    "m4",
    "m6",
    "f1",
    "f2",
    "f4",
    "Andy",
    "Alex",
    "Annie",
    "belinda",
    "john",
    "steph",
    "Mike",
    "paul",
)
"""Variants of voices of the training: each of them in every accent."""
TESTED = ("m2", "m5", "m7", "f3", "f5", "adam", "linda", "david", "Andrea", "rob")
"""Those of the test."""

RATE, WINDOW, HOP = 22050, 512, 441
FRAMES, BANDS = 48, 32
LOWEST, HIGHEST = 60.0, 8000.0
FLOOR, RANGE = -40.0, 90.0

Sound = npt.NDArray[np.float64]
Spectrograms = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recordings:
    """Spectrograms (N, FRAMES, BANDS) and which word each is, as indices into WORDS."""

    spectrograms: Spectrograms
    labels: npt.NDArray[np.int64]


def speak(word: str, voice: str, speed: int, pitch: int) -> Sound:
    """Return what espeak-ng says, between -1 and 1, without the silence around it."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    answer = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(answer)) as file:
        if (file.getframerate(), file.getsampwidth(), file.getnchannels()) != (RATE, 2, 1):
            raise ValueError(f"{voice} does not speak at {RATE} Hz, 16 bits, one channel")
        sound = np.frombuffer(file.readframes(RATE * 10), np.int16) / 32768.0
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    if not loud.size:
        raise ValueError(f"{voice} says nothing for {word!r}")
    return sound[loud[0] : loud[-1] + 1]


def filters() -> npt.NDArray[np.float64]:
    """Return the weights of the bands, (BANDS, WINDOW / 2 + 1): triangles that overlap by a half, evenly spaced on the mel scale."""
    lowest, highest = (2595.0 * np.log10(1.0 + edge / 700.0) for edge in (LOWEST, HIGHEST))
    edges = 700.0 * (10.0 ** (np.linspace(lowest, highest, BANDS + 2) / 2595.0) - 1.0)
    frequencies = np.fft.rfftfreq(WINDOW, 1.0 / RATE)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    weights: npt.NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    return weights


def spectrogram(sound: Sound, weights: npt.NDArray[np.float64]) -> Spectrograms:
    """Return the spectrogram of (FRAMES - 1) HOP + WINDOW samples."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP][:FRAMES]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    decibels = 10.0 * np.log10(power @ weights.T + 1e-6)
    stored: Spectrograms = np.clip(np.rint((decibels - FLOOR) * 255.0 / RANGE), 0, 255).astype(np.uint8)
    return stored


def record(variants: Sequence[str], count: int, seed: int) -> Recordings:
    """Return `count` recordings of words, voices, speeds, pitches, places and noise drawn at random."""
    generator = np.random.default_rng(seed)
    weights = filters()
    length = (FRAMES - 1) * HOP + WINDOW
    labels = generator.permutation(np.arange(count) % len(WORDS))
    spectrograms = np.zeros((count, FRAMES, BANDS), np.uint8)
    for number, label in enumerate(labels):
        variant = variants[generator.integers(len(variants))]
        voice = ACCENTS[generator.integers(len(ACCENTS))] + (f"+{variant}" if variant else "")
        sound = speak(WORDS[label], voice, int(generator.integers(120, 221)), int(generator.integers(25, 76)))
        sound = sound[:length] * 10.0 ** (generator.uniform(-12.0, 0.0) / 20.0)
        start = generator.integers(length - len(sound) + 1)
        noise = generator.standard_normal(length) * 10.0 ** (generator.uniform(-55.0, -25.0) / 20.0)
        noise[start : start + len(sound)] += sound
        spectrograms[number] = spectrogram(noise, weights)
    return Recordings(spectrograms, labels.astype(np.int64))
