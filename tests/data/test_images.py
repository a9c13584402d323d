"""Images: every reader and writer gives back the same pixels, and bad input is one clear sentence."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ancestral.data import Images, read, sniff, write
from ancestral.errors import DataError

few = settings(max_examples=25, deadline=None)


@st.composite
def images(draw):
    n, h, w = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    c = draw(st.sampled_from([1, 2, 3, 4]))
    levels = draw(st.sampled_from([2, 3, 17, 64, 255, 256]))
    seed = draw(st.integers(0, 2**16))
    pixels = np.random.default_rng(seed).integers(0, levels, (n, h, w, c), dtype=np.uint8)
    labelled = draw(st.booleans())
    return Images(pixels, labels=np.arange(n) % 2 if labelled else None, levels=levels)


@few
@given(images(), st.sampled_from(["folder", "x.npz", "x.npy"]))
def test_written_images_read_back_the_same(data, name):
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / name
        write(data, target)
        levels = data.levels if name == "x.npy" else None
        if name == "folder" and data.labels is not None and len(set(data.labels)) > 1:
            back = read(target)
            order = np.argsort(data.labels, kind="stable")
            assert [back.classes[i] for i in back.labels] == [data.classes[i] for i in data.labels[order]]
            assert (back.pixels == data.pixels[order]).all()
        else:
            back = read(target, levels=levels)
            assert (back.pixels == data.pixels).all()
        assert back.levels == data.levels


def test_labels_survive_an_archive(tmp_path):
    data = Images(np.zeros((3, 2, 2, 1), np.uint8), labels=["cat", "dog", "cat"])
    write(data, tmp_path / "a.npz")
    back = read(tmp_path / "a.npz")
    assert back.classes == ("cat", "dog") and back.labels.tolist() == [0, 1, 0]


def test_array_layouts_come_back_as_given():
    grey = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) + 100
    first = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 6), dtype=np.uint8)
    assert (read(grey).native() == grey).all()
    assert read(first).pixels.shape == (2, 5, 6, 3)
    assert (read(first).native() == first).all()
    assert (read(torch.from_numpy(first)).native() == first).all()


def test_digits_keep_their_seventeen_levels():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    data = read(digits.images, labels=digits.target)
    assert data.levels == 17 and len(data.classes) == 10
    assert (data.native() == digits.images).all()


def test_pil_images_come_back_as_pil_images():
    pictures = [Image.fromarray(np.full((2, 3, 3), i, np.uint8)) for i in range(3)]
    back = read(pictures).native()
    assert [p.tobytes() for p in back] == [p.tobytes() for p in pictures]


def test_a_dict_or_npz_of_a_split_finds_the_right_half(tmp_path):
    rng = np.random.default_rng(0)
    parts = {"x_train": rng.integers(0, 256, (4, 2, 2), dtype=np.uint8), "y_train": np.array([0, 1, 2, 3])}
    parts |= {"x_test": rng.integers(0, 256, (2, 2, 2), dtype=np.uint8), "y_test": np.array([1, 0])}
    np.savez(tmp_path / "a.npz", **parts)
    assert read(tmp_path / "a.npz").labels.tolist() == [0, 1, 2, 3]
    test = read(tmp_path / "a.npz", key="x_test")
    assert test.labels.tolist() == [1, 0] and (test.native() == parts["x_test"]).all()


def test_bilevel_png_is_two_levels(tmp_path):
    ink = np.array([[0, 1], [1, 1]], dtype=bool)
    Image.fromarray(ink).save(tmp_path / "a.png")
    data = read(tmp_path / "a.png")
    assert data.levels == 2 and (data.native()[0] == ink).all()


def test_fractions_are_rounded_only_where_levels_are_given():
    fractions = np.linspace(0, 1, 16).reshape(1, 4, 4)
    with pytest.raises(DataError, match="fractions"):
        read(fractions)
    assert read(fractions, levels=16).pixels.reshape(-1).tolist() == list(range(16))


def test_mixed_modes_become_the_richest(tmp_path):
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((2, 2, 3), (1, 2, 3), np.uint8)).save(tmp_path / "b.png")
    data = read(tmp_path)
    assert data.pixels[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def _mixed(folder: Path) -> Path:
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(folder / "first.png")
    Image.fromarray(np.zeros((5, 4), np.uint8)).save(folder / "second.png")
    return folder


def test_mixed_sizes_name_both_files_and_can_be_resized(tmp_path):
    with pytest.raises(DataError, match=r"first\.png is 3x2 and .*second\.png is 4x5"):
        read(_mixed(tmp_path))
    assert read(tmp_path, size=(4, 6)).pixels.shape == (2, 4, 6, 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "none.png", "no file or folder"),
        (lambda p: p, "empty"),
        (
            lambda p: (p / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nxx") and p / "bad.png",
            r"bad\.png is not a readable",
        ),
        (lambda p: (p / "bad.npz").write_bytes(b"PK junk") and p / "bad.npz", r"bad\.npz"),
        (lambda p: np.full((1, 2, 2), np.nan), "NaN"),
        (lambda p: np.full((1, 2, 2), 300), "0 to 255"),
        (lambda p: np.full((1, 2, 2), -1), "0 to 255"),
        (lambda p: np.zeros((0, 2, 2)), "at least one"),
        (lambda p: [np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)], "differ in size"),
        (lambda p: np.zeros((1, 9, 9, 9)), "channels"),
    ],
)
def test_bad_images_are_one_clear_sentence(tmp_path, make, words):
    with pytest.raises(DataError, match=words) as caught:
        read(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_cut_jpeg_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    with pytest.raises(DataError, match=r"cut\.jpg is not a readable image"):
        read(tmp_path)


def test_archives_of_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        read(tmp_path / "a.npy")


def test_unwritable_targets_leave_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    data = Images(np.zeros((2, 2, 2, 1), np.uint8))
    for target in (tmp_path / "file" / "x.npz", tmp_path / "file", tmp_path / "two.png", tmp_path / "x.jpg"):
        with pytest.raises(DataError):
            write(data, target)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_names_from_a_stream_cannot_leave_the_folder(tmp_path):
    data = Images(np.zeros((1, 2, 2, 1), np.uint8), names=["../escaped.png"])
    write(data, tmp_path / "inside")
    assert not (tmp_path / "escaped.png").exists()
    assert len(list((tmp_path / "inside").iterdir())) == 1


def test_labels_must_match():
    with pytest.raises(DataError, match="2 labels for 3 items"):
        read(np.zeros((3, 2, 2), np.uint8), labels=[0, 1])
    with pytest.raises(DataError, match="negative"):
        read(np.zeros((2, 2, 2), np.uint8), labels=[0, -1])


def test_mnist_is_read(shared):
    data = read(shared("data/mnist/test.npz"))
    assert data.pixels.shape == (10_000, 28, 28, 1) and len(data.classes) == 10 and data.levels == 256


def test_sniffing():
    assert sniff(np.zeros((1, 2, 2))) == "images"
    with pytest.raises(DataError, match="modality="):
        sniff(np.zeros((2, 2)))
    with pytest.raises(DataError, match="no option sise="):
        read(np.zeros((1, 2, 2), np.uint8), sise=3)
