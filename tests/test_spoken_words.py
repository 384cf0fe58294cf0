"""Spectrograms of the tool that lets espeak-ng speak, which need no espeak-ng."""

import numpy as np

from tools.spoken_words import BANDS, FRAMES, HOP, RATE, TESTED, TRAINED, WINDOW, filters, spectrogram


def test_a_tone_lights_the_band_that_it_lies_in_and_louder_ones_shine_more():
    time = np.arange((FRAMES - 1) * HOP + WINDOW) / RATE
    weights = filters()
    for band in (4, 15, 27):
        pitch = np.fft.rfftfreq(WINDOW, 1.0 / RATE)[weights[band].argmax()]
        quiet, loud = (spectrogram(level * np.sin(2 * np.pi * pitch * time), weights) for level in (0.01, 0.1))
        assert quiet.shape == (FRAMES, BANDS)
        assert quiet.dtype == np.uint8
        assert (quiet.argmax(axis=1) == band).all()
        np.testing.assert_allclose(loud[:, band].astype(int) - quiet[:, band], 20.0 * 255.0 / 90.0, atol=1.0)


def test_no_voice_of_the_test_is_one_of_the_training():
    assert not {*TRAINED} & {*TESTED}
