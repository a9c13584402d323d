"""Text, bytes and sequences: exact round trips, and bad input is one clear sentence."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.data import Sequences, Text, read, sniff, write
from ancestral.errors import DataError

few = settings(max_examples=40, deadline=None)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
symbols = st.lists(st.lists(st.one_of(st.integers(-(10**20), 10**20), words), max_size=6), min_size=1, max_size=4)


@few
@given(st.binary(min_size=1, max_size=60))
def test_any_file_is_read_and_written_as_bytes(payload):
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place) / "in.dat", Path(place) / "out.dat"
        source.write_bytes(payload)
        data = read(source, modality="bytes")
        assert data.native() == [payload]
        write(data, target)
        assert target.read_bytes() == payload


@few
@given(st.lists(words, min_size=1, max_size=5).filter(any))
def test_folders_and_lists_of_text_come_back(documents):
    data = read(documents)
    assert data.native() == documents
    with tempfile.TemporaryDirectory() as place:
        write(data, Path(place) / "folder")
        assert read(Path(place) / "folder", modality="text").native() == documents
        write(data, Path(place) / "x.jsonl")
        assert [item for item in (Path(place) / "x.jsonl").read_text("utf-8").splitlines()]


@few
@given(st.lists(words.filter(lambda w: "\n" not in w), min_size=1, max_size=5).filter(any))
def test_lines_come_back(documents):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "lines.txt"
        path.write_bytes("".join(d + "\n" for d in documents).encode())
        data = read(path, lines=True)
        assert data.native() == documents
        write(data, Path(place) / "back.txt")
        assert (Path(place) / "back.txt").read_bytes() == path.read_bytes()


def test_a_folder_keeps_its_names(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "one.md").write_bytes(b"\xef\xbb\xbfa\r\n")
    (tmp_path / "in" / "two.txt").write_bytes(b"b")
    data = read(tmp_path / "in")
    assert sniff(tmp_path / "in") == "text"
    write(data, tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "one.md").read_bytes() == b"\xef\xbb\xbfa\r\n"
    assert (tmp_path / "out" / "two.txt").read_bytes() == b"b"


def test_form_restores_kind_and_names():
    data = Text([b"\xff\x00"], binary=True, kind="single", names=["x.bin"])
    other = Text([b"\xff\x00"], binary=False).with_form(data.form)
    assert other.native() == b"\xff\x00" and other.names == ("x.bin",)
    assert read(b"abc").native() == b"abc"


def test_labels_and_take():
    data = read(["a", "b", "c"], labels=["x", "y", "x"])
    assert data.take([2, 0]).native() == ["c", "a"]
    assert data.take(np.array([False, True, False])).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: "no such file.txt", "no file or folder"),
        (lambda p: "word " * 2000, "no file or folder"),
        (
            lambda p: (p / "a.txt").write_bytes(b"abc\xff") and p / "a.txt",
            r"a\.txt .* 0xff at offset 3; .*bytes",
        ),
        (lambda p: (p / "a.txt").touch() or p / "a.txt", "no text"),
        (lambda p: p, "empty"),
        (lambda p: ["ok", "half \ud800"], "document 1 .* position 5"),
        (lambda p: ["ok", b"bytes"], "item 1 is a bytes"),
        (lambda p: [""], "no text"),
    ],
)
def test_bad_text_is_one_clear_sentence(tmp_path, make, said):
    with pytest.raises(DataError, match=said) as caught:
        read(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_documents_of_several_lines_do_not_share_a_file(tmp_path):
    with pytest.raises(DataError, match="several lines"):
        write(read(["a\nb", "c"]), tmp_path / "x.txt")
    assert not list(tmp_path.iterdir())


@few
@given(symbols.filter(lambda items: any(items)))
def test_sequences_come_back_from_jsonl(items):
    data = read(items, modality="sequences")
    assert data.native() == items
    with tempfile.TemporaryDirectory() as place:
        write(data, Path(place) / "x.jsonl")
        assert read(Path(place) / "x.jsonl").native() == items


def test_sequences_of_words_and_of_numbers(tmp_path):
    (tmp_path / "w.txt").write_text("a b  c\n\nd\n")
    data = read(tmp_path / "w.txt", modality="sequences")
    assert data.native() == [["a", "b", "c"], ["d"]]
    write(data, tmp_path / "o.txt")
    assert (tmp_path / "o.txt").read_text() == "a b c\nd\n"
    array = np.arange(6).reshape(2, 3)
    assert (read(array, modality="sequences").native() == array).all()
    assert sniff([[1, 2], ["a"]]) == "sequences"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('["a"]\n{"b": 1}\n', "line 2"),
        ('["a"]\nnot json\n', "line 2"),
        ("[1.5]\n", "1.5 at place 0"),
        ("", "no symbols"),
    ],
)
def test_bad_sequences_are_one_clear_sentence(tmp_path, content, said):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "x.jsonl")


def test_words_with_spaces_need_jsonl(tmp_path):
    with pytest.raises(DataError, match="jsonl"):
        write(Sequences([["two words"]]), tmp_path / "x.txt")
