"""The verbs over HTTP: what a model answers there is what it answers in Python."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from served import Served, client, image_model, people, refused, serving, table_model, text_model, wait

from ancestral.coding.container import ITEMS, STREAMS, Container, claimed, pack, varints
from ancestral.coding.prints import fingerprint
from ancestral.data import Audio, Images
from ancestral.errors import StreamError
from ancestral.quickstart import digits
from ancestral.serving.limits import Limits

LIMITS = Limits(body=300_000, items=100, pixels=10_000)


@pytest.fixture(scope="module")
def text() -> Iterator[Served]:
    with serving(text_model(), LIMITS) as made:
        yield made


@pytest.fixture(scope="module")
def table() -> Iterator[Served]:
    with serving(table_model(), LIMITS) as made:
        yield made


@pytest.fixture(scope="module")
def images() -> Iterator[Served]:
    with serving(image_model(), LIMITS) as made:
        yield made


def post(served: Served, path: str, **body: object) -> httpx.Response:
    with client(served) as http:
        return http.post(path, json=body)


def rows(served: Served, path: str, **body: object) -> list:
    answer = post(served, path, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def pictures(items: list[str]) -> np.ndarray:
    return Images.read([Image.open(io.BytesIO(base64.b64decode(item))) for item in items]).pixels


def test_texts(text: Served) -> None:
    model = text_model()
    drawn = rows(text, "/sample", n=3, length=15, seed=2, temperature=0.8)
    expected = model.sample(3, length=15, seed=2, temperature=0.8, as_dataset=True).payloads
    assert [base64.b64decode(i["base64"]) if isinstance(i, dict) else i.encode() for i in drawn] == expected
    items = ["It was dark", "café", {"base64": base64.b64encode(b"It").decode()}]
    scored = post(text, "/score", items=items).json()
    plain = model.log_prob(["It was dark", "café", "It"])
    assert scored["log_prob"] == pytest.approx(plain.tolist(), abs=1e-4) and scored["kind"] == "exact"
    assert scored["bits_per_dim"] == pytest.approx(plain.bits_per_dim(), abs=1e-5)
    longer = rows(text, "/complete", items=["It was"], draws=2, length=4, seed=1, temperature=0)
    expected = model.complete(["It was"], draws=2, length=4, seed=1, temperature=0, as_dataset=True).payloads
    assert [base64.b64decode(i["base64"]) if isinstance(i, dict) else i.encode() for i in longer] == expected
    code = post(text, "/compress", items=items[:2]).json()
    assert code["bytes"] == len(base64.b64decode(code["data"]))
    assert rows(text, "/decompress", data=code["data"]) == items[:2]
    assert model.decompress(base64.b64decode(code["data"])) == items[:2]


def test_tables(table: Served) -> None:
    model, frame = table_model(), people()
    drawn = rows(table, "/sample", n=70, seed=3, given={"sex": "Female"})
    expected = model.sample(70, seed=3, given={"sex": "Female"})
    assert drawn == expected.to_dict("records") and {row["sex"] for row in drawn} == {"Female"}
    items = frame.head(5).to_dict("records")
    assert post(table, "/score", items=items).json()["log_prob"] == pytest.approx(
        model.log_prob(frame.head(5)).tolist(), abs=1e-4
    )
    gaps = [items[0] | {"age": None}, items[1] | {"height": None}]
    full = rows(table, "/complete", items=gaps, draws=3, seed=1)
    assert len(full) == 6 and all(row[name] is not None for row in full for name in row)
    assert all(full[i]["sex"] == items[i // 3]["sex"] for i in range(6))
    assert [row["height"] for row in full[:3]] == [items[0]["height"]] * 3
    some = rows(table, "/complete", items=items[:2], known=["sex"], seed=1)
    assert [row["sex"] for row in some] == [row["sex"] for row in items[:2]]
    assert rows(table, "/decompress", data=post(table, "/compress", items=items).json()["data"]) == items
    assert "no column 'age'" in refused(post(table, "/score", items=[{"sex": "Male", "height": 1.7}]), 400)
    assert "an unknown column 'x'" in refused(post(table, "/score", items=[items[0] | {"x": 1}]), 400)
    assert "no plain value" in refused(post(table, "/score", items=[items[0] | {"age": [1]}]), 400)
    assert "no object" in refused(post(table, "/score", items=["people.csv"]), 400)


def test_images(images: Served) -> None:
    model = image_model()
    drawn = rows(images, "/sample", n=2, seed=4)
    assert (pictures(drawn)[..., 0] == model.sample(2, seed=4)).all()
    some = digits()[1].take(slice(0, 3))
    items = [base64.b64encode(some.png(i)).decode() for i in range(3)]
    assert post(images, "/score", items=items).json()["log_prob"] == pytest.approx(
        model.log_prob(some).tolist(), abs=1e-3
    )
    done = pictures(rows(images, "/complete", items=items, known="top", seed=1))
    assert (done[:, :4] == some.pixels[:, :4]).all() and (done[:, 4:] != some.pixels[:, 4:]).any()
    mask = io.BytesIO()
    Image.fromarray((np.arange(64).reshape(8, 8) % 2 * 255).astype(np.uint8)).save(mask, "PNG")
    every_other = base64.b64encode(mask.getvalue()).decode()
    done = pictures(rows(images, "/complete", items=items, known=every_other, seed=1))
    assert (done[..., 1::2, 0] == some.pixels[..., 1::2, 0]).all()
    assert (pictures(rows(images, "/decompress", data=post(images, "/compress", items=items).json()["data"]))
            == some.pixels).all()  # fmt: skip
    assert "say what is known" in refused(post(images, "/complete", items=items), 400)
    assert "known is neither" in refused(post(images, "/complete", items=items, known="middle"), 400)


def test_no_path_is_ever_opened(
    text: Served, table: Served, images: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of files that are there are texts like others, or refused; nothing reads the files."""
    some = digits()[1].take(slice(0, 1))
    some.save(tmp_path / "one.png")
    (tmp_path / "secret.txt").write_text("secret")

    def opened(path: Path, *rest: object, **options: object) -> object:
        raise AssertionError(f"{path} was opened")

    picture, secret = str(tmp_path / "one.png"), str(tmp_path / "secret.txt")
    for name in ("open", "read_bytes", "read_text"):
        monkeypatch.setattr(Path, name, opened)
    assert post(text, "/score", items=[secret]).json()["log_prob"] == pytest.approx(
        text_model().log_prob([secret]).tolist(), abs=1e-4
    )
    assert rows(text, "/complete", items=[secret], length=1, temperature=0)[0].startswith(secret)
    refused(post(images, "/score", items=[picture]), 400)
    refused(post(images, "/complete", items=[base64.b64encode(some.png(0)).decode()], known=picture), 400)
    refused(post(table, "/score", items=[picture]), 400)
    refused(post(table, "/complete", items=[people().iloc[0].to_dict()], known=[secret]), 400)
    refused(post(text, "/decompress", data=secret), 400)
    refused(post(text, "/sample", out=secret), 400)


def container(kind: int, numbers: tuple[int, ...], *sections: bytes) -> bytes:
    made = text_model() if kind == STREAMS else image_model()
    return pack(Container(kind, fingerprint(made.generator), bytes(4), bytes(4), numbers, sections))


def bomb(size: int) -> bytes:
    """A container whose first section inflates to ``size`` zeros."""
    return container(STREAMS, (1, 1, 64, 12), bytes(size), varints([5]), varints([1]), b"")


@pytest.mark.parametrize(
    ("blob", "status"),
    [
        (container(STREAMS, (1, 1, 64, 12), b"", varints([1 << 50]), varints([1]), b""), 413),
        (container(STREAMS, (1, 1, 64, 12), b"", varints([5]), varints([1 << 50]), b""), 413),
        (container(STREAMS, (1, 1 << 50, 64, 12), b"", varints([5]), varints([1]), b""), 413),
        (container(STREAMS, (1, 2, 64, 12), b"", varints([5]), varints([1]), b""), 400),
        (container(STREAMS, (), b""), 400),
        (bomb(10_000_000), 400),
        (b"nothing", 400),
        (b"", 400),
    ],
)
def test_streams_that_promise_too_much_are_not_begun(text: Served, blob: bytes, status: int) -> None:
    refused(post(text, "/decompress", data=base64.b64encode(blob).decode()), status)


def test_claims_are_read_without_decoding() -> None:
    blob = container(ITEMS, (1, 1 << 60, 8, 0), b"", b"", b"", b"", b"")
    assert claimed(blob, 100)[0] == 1 << 60
    with pytest.raises(StreamError, match="more than 100 bytes"):
        claimed(bomb(1000), 100)
    assert claimed(bomb(100), 100) == (1, 5)
    cut = bytearray(bomb(5000))
    cut[-4:] = zlib.crc32(bytes(cut[:-4])).to_bytes(4, "little")
    assert claimed(bytes(cut), 5000) == (1, 5)


def test_a_picture_that_would_fill_the_memory_is_refused(images: Served) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    huge = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )
    assert "image 0" in refused(post(images, "/score", items=[base64.b64encode(huge).decode()]), 413)
    assert "can be read" in refused(post(images, "/score", items=[base64.b64encode(
        huge.replace(header, struct.pack(">IIBBBBB", 50, 50, 8, 0, 0, 0, 0))).decode()]), 400)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/sample", {"n": 0}, 400, "n: "),
        ("/sample", {"n": 101}, 413, "101 items are more than 100"),
        ("/sample", {"length": 5000}, 400, "length=5000"),
        ("/sample", {"label": "3"}, 400, "label"),
        ("/sample", {"given": "It was"}, 400, "/complete"),
        ("/sample", {"colour": 1}, 400, "colour"),
        ("/score", {"items": []}, 400, "at least one"),
        ("/score", {"items": ["a"] * 101}, 413, "send them in parts"),
        ("/score", {"items": [7]}, 400, "neither a string nor"),
        ("/score", {"items": [{"base64": "§"}]}, 400, "not base64"),
        ("/score", {"items": ["\ud800"]}, 400, "surrogate"),
        ("/score", {}, 400, "items"),
        ("/complete", {"items": ["a"], "draws": 101}, 413, "101 items"),
        ("/complete", {"items": ["a"], "known": "top"}, 400, "half of an image"),
        ("/decompress", {"data": "%"}, 400, "not base64"),
    ],
)
def test_what_is_refused_is_said_in_one_sentence(text: Served, path: str, body: dict, status: int, says: str) -> None:
    import json

    with client(text) as http:
        answer = http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert says in refused(answer, status)


def test_damaged_codes_are_refused(text: Served) -> None:
    blob = bytearray(base64.b64decode(post(text, "/compress", items=["It was"]).json()["data"]))
    blob[-8] ^= 1
    assert "damaged" in refused(post(text, "/decompress", data=base64.b64encode(blob).decode()), 400)


def test_a_client_that_leaves_is_not_worked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work ends at the next batch, and those who wait come on; too many are refused."""
    with serving(text_model(), Limits(items=1 << 20, verbs=1)) as served:
        with client(served) as http, pytest.raises(httpx.ReadTimeout):
            http.post("/sample", json={"n": 1 << 20, "length": 24}, timeout=0.4)
        wait(lambda: served.app.state.verbs._waiting == 0)
        assert served.count("ancestral_cancelled_total") == 1
        assert len(rows(served, "/sample", n=1, length=4)) == 1
        monkeypatch.setattr(served.app.state.verbs, "_waiting", 5)
        answer = post(served, "/sample", n=1)
        assert "5 requests are waiting" in refused(answer, 429) and int(answer.headers["retry-after"]) >= 1


def test_sound_is_read_from_bytes() -> None:
    sound = Audio.read([np.arange(-50, 50, dtype=np.int16), np.arange(9, dtype=np.int16)], rate=8000)
    back = Audio.read_files([sound.wav(0), sound.wav(1)])
    assert back.rate == 8000 and all((a == b).all() for a, b in zip(back.clips, sound.clips, strict=True))
