from __future__ import annotations

import hashlib
import subprocess
import sys

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from bench.datasets.synthetic_audio import SyntheticSound


def features(sounds: list[SyntheticSound]) -> NDArray[np.float64]:
    """Mean and deviation over time of 32 log-mel bands."""
    rows = []
    for sound in sounds:
        power = librosa.feature.melspectrogram(y=sound.waveform(16_000, None), sr=16_000, n_fft=512, n_mels=32)
        decibels = librosa.power_to_db(power)
        rows.append(np.concatenate([decibels.mean(axis=1), decibels.std(axis=1)]))
    return np.stack(rows)


def test_a_sound_is_the_same_in_every_process() -> None:
    sound = SyntheticSound(3, 10, 17, 0.7)
    code = (
        "import hashlib\nfrom bench.datasets.synthetic_audio import SyntheticSound\n"
        "y = SyntheticSound(3, 10, 17, 0.7).waveform(22_050, None)\n"
        "print(hashlib.sha256(y.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert hashlib.sha256(sound.waveform(22_050, None).tobytes()).hexdigest() == other


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_sound_has_its_length_and_fits_sixteen_bits(rate: int) -> None:
    for seconds in (0.3, 5.0):
        y = SyntheticSound(0, 10, 1, seconds).waveform(rate, None)
        assert len(y) == round(seconds * rate)
        assert y.dtype == np.float32
        assert 0.01 < np.abs(y).max() <= 1


def test_the_beginning_is_that_of_the_whole() -> None:
    sound = SyntheticSound(2, 10, 5, 2.0)
    np.testing.assert_array_equal(sound.waveform(16_000, 5_000), sound.waveform(16_000, None)[:5_000])
    assert len(sound.waveform(16_000, 100_000)) == 32_000


def test_items_differ_and_say_so() -> None:
    items = [SyntheticSound(k % 2, 2, k, 0.5) for k in range(12)]
    assert len({item.waveform(16_000, None).tobytes() for item in items}) == len(items)
    others = [SyntheticSound(0, 3, 0, 0.5), SyntheticSound(1, 2, 0, 0.5), SyntheticSound(0, 2, 0, 0.6)]
    assert len({item.state() for item in [*items, *others]}) == len(items) + len(others)


def test_there_is_noise_even_where_a_recording_is_quiet() -> None:
    for number in range(5):
        y = SyntheticSound(number, 5, number, 2.0).waveform(44_100, None)
        frames = y[: len(y) // 441 * 441].reshape(-1, 441)
        assert frames.std(axis=1).min() > 1e-5


@pytest.mark.parametrize("classes", [10, 50])
def test_classes_can_be_learned_by_what_they_sound_like(classes: int) -> None:
    train = [SyntheticSound(k, classes, 8 * k + i, 0.6) for k in range(classes) for i in range(4)]
    test = [SyntheticSound(k, classes, 8 * k + i, 0.6) for k in range(classes) for i in range(4, 6)]
    x, unknown = features(train), features(test)
    scale = x.std(axis=0)
    centres = np.stack([(x / scale)[4 * k : 4 * k + 4].mean(axis=0) for k in range(classes)])
    nearest = np.linalg.norm((unknown / scale)[:, None] - centres, axis=2).argmin(axis=1)
    correct = (nearest == [item.label for item in test]).mean()
    # Far above chance, and not so easy that nothing is left to learn.
    assert correct > 0.4
