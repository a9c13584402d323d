"""Sound: files come back sample for sample, and mu-law loses nothing that scores and codes do not hold."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ancestral
from ancestral import Model
from ancestral.cli import main
from ancestral.data import Audio, read, sniff
from ancestral.errors import DataError
from ancestral.tokenizers import MuLaw, Tokenizer


def sines(n: int, length: int = 200, bits: int = 16) -> list[np.ndarray]:
    random, t = np.random.default_rng(0), np.arange(length)
    tops = random.uniform(0.1, 0.9, n)[:, None] * np.sin(t * random.uniform(0.05, 0.3, n)[:, None])
    if bits == 8:
        return list(np.round(tops * 127 + 128).astype(np.uint8))
    return list((tops * 32767 + random.normal(0, 30, tops.shape)).astype(np.int16))


@pytest.mark.parametrize("bits", [8, 16])
def test_files_come_back_sample_for_sample(tmp_path: Path, bits: int) -> None:
    clips = sines(3, bits=bits)
    Audio.read(clips, rate=8000).save(tmp_path / "clips")
    again = read(tmp_path / "clips")
    assert sniff(tmp_path / "clips") == "audio" and again.rate == 8000 and again.bits == bits
    assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(again.native(), clips, strict=True))
    again.take([1]).save(tmp_path / "one.wav")
    assert (read(tmp_path / "one.wav").native()[0] == clips[1]).all()


def test_folders_are_classes(tmp_path: Path) -> None:
    Audio.read(sines(4), labels=["low", "high", "low", "high"]).save(tmp_path / "all")
    again = read(tmp_path / "all")
    assert again.classes == ("high", "low") and np.bincount(again.labels).tolist() == [2, 2]


def test_bad_sound_is_refused_in_one_sentence(tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.arange(20, dtype="<i2").tobytes())
    (tmp_path / "junk.wav").write_bytes(b"RIFFjunk")
    assert read(tmp_path / "stereo.wav", channel=1).native()[0].tolist() == list(range(1, 20, 2))
    Audio.read(sines(1), rate=8000).save(tmp_path / "mixed" / "a.wav")
    Audio.read(sines(1), rate=9000).save(tmp_path / "mixed" / "b.wav")
    for source, options, message in (
        (tmp_path / "stereo.wav", {}, "2 channels; choose one"),
        (tmp_path / "stereo.wav", {"channel": 2}, "no channel=2"),
        (tmp_path / "junk.wav", {}, "not a wav file"),
        (tmp_path / "mixed", {}, "9000 samples a second"),
        ([np.array([1.5])], {}, "beyond -1 to 1"),
        ([np.zeros((2, 2), np.int16)], {}, "one channel"),
        ([np.zeros(3, np.int64)], {}, "int64"),
        ([], {}, "no sound"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read(source, "audio", **options)
        assert "\n" not in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([8, 16]), st.sampled_from([2, 16, 256, 300]), st.booleans(), st.data())
def test_every_sample_comes_back(bits: int, levels: int, streaming: bool, data: st.DataObject) -> None:
    half = 1 << (bits - 1)
    lists = data.draw(st.lists(st.lists(st.integers(-half, half - 1), min_size=1, max_size=9), min_size=1, max_size=4))
    sound = Audio(lists, bits=bits)
    fitted = MuLaw(levels, 9, streaming).fit(sound)
    tokenizer = Tokenizer.from_state(fitted.state())
    if streaming:
        back = tokenizer.from_streams_exact(*tokenizer.streams_exact(sound))
    else:
        back = tokenizer.decode_exact(*tokenizer.encode_exact(sound))
    assert [clip.tolist() for clip in back.clips] == lists
    rest = tokenizer.rest(sound)
    assert rest is not None and all((row <= 0).all() for row in rest)


def test_mu_law_is_its_formula_and_cells_share_all_samples() -> None:
    tokenizer = MuLaw(256, 8).fit(Audio([range(8)]))
    x = np.array([-32768, -3000, -1, 0, 1, 500, 32767])
    squeezed = np.sign(x) * np.log1p(255 * np.abs(x) / 32768) / math.log(256)
    expected = np.minimum(np.floor((squeezed + 1) * 128), 255)
    assert tokenizer.streams(Audio([x]))[0].tolist() == expected.tolist()
    every = Audio([np.arange(-32768, 32768)])
    rest = tokenizer.rest(every)
    assert rest is not None
    symbols = tokenizer.streams(every)[0].numpy()
    total = np.bincount(symbols, np.exp(rest[0]), 256)  # uniform within a cell: sums to one over each
    np.testing.assert_allclose(total, 1, rtol=1e-9)
    middle = tokenizer.from_streams(tokenizer.streams(every))
    assert (tokenizer.streams(middle)[0].numpy() == symbols).all()  # a cell's middle lies in the cell


@pytest.fixture(scope="module")
def model() -> Model:
    size = dict(width=16, cycles=1, layers=4, length=64)
    sound = Audio.read(sines(8), rate=8000)
    return ancestral.fit(sound, recipe="wavenet", steps=25, lr=1e-2, ema=0.8, quiet=True, validation=0, **size)


def test_scores_and_codes_are_those_of_the_samples(model: Model) -> None:
    clips = sines(3)
    scores = model.log_prob(Audio.read(clips), per_site=True)
    assert scores.scalars.tolist() == [200] * 3
    np.testing.assert_allclose(scores.per_site.sum(1), np.asarray(scores), rtol=1e-9)
    assert scores.bits_per_dim() < 16  # a little trained, it knows more than nothing of 16 bits
    blob = model.compress(Audio.read(clips, rate=8000))
    back = model.decompress(blob, as_dataset=True)
    assert back.rate == 8000 and all((a == b).all() for a, b in zip(back.native(), clips, strict=True))
    ideal = -float(np.asarray(scores).sum()) / math.log(2)
    assert ideal - 64 <= 8 * len(blob) <= 1.01 * ideal + 8 * 120


def test_samples_and_continuations_are_sound(model: Model, tmp_path: Path) -> None:
    drawn = model.sample(2, length=50, as_dataset=True)
    assert isinstance(drawn, Audio) and [len(c) for c in drawn.clips] == [50, 50] and drawn.rate == 8000
    beginning = sines(1)[0][:30]
    done = model.complete(Audio.read([beginning]), draws=2, length=20)
    assert all((clip[:30] == beginning).all() and len(clip) == 50 for clip in done)  # to the sample
    model.save(tmp_path / "model")
    assert main(["sample", str(tmp_path / "model"), "-n", "2", "--length", "9", "--out", str(tmp_path / "out")]) == 0
    assert [len(clip) for clip in read(tmp_path / "out").clips] == [9, 9]


def test_whole_clips_with_classes() -> None:
    sound = Audio.read(sines(12, 20), labels=["a", "b"] * 6)
    size = dict(width=8, cycles=1, layers=2, length=20, streaming=False)
    model = ancestral.fit(sound, recipe="wavenet", steps=2, quiet=True, validation=0, **size)
    back = model.decompress(model.compress(sound), as_dataset=True)
    assert all((a == b).all() for a, b in zip(back.clips, sound.clips, strict=True))
    assert (back.labels == sound.labels).all()
    uniform = 16 * math.log(2)
    assert (-np.asarray(model.log_prob(sound)) / 20 < 1.5 * uniform).all()
    clip = model.complete(Audio.read([sound.native()[0]]), known=np.arange(20) < 8)[0]
    assert (clip[:8] == sound.native()[0][:8]).all()


def test_spoken_digits_come_back(shared, tmp_path: Path) -> None:
    files = sorted(shared("data/fsdd").glob("*.wav"))[:4]
    for file in files:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    sound = read(tmp_path)
    assert sound.rate == 8000 and sound.bits == 16
    tokenizer = MuLaw(length=64).fit(sound)
    back = tokenizer.from_streams_exact(*tokenizer.streams_exact(sound))
    assert all((a == b).all() for a, b in zip(back.clips, sound.clips, strict=True))
    back.with_form(sound.form).save(tmp_path / "again")
    assert all((read(tmp_path / "again" / f.name).clips[0] == read(f).clips[0]).all() for f in files)
