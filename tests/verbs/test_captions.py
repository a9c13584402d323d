"""Images that are drawn to a caption."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ancestral
from ancestral.data import Images, read
from ancestral.errors import DataError
from ancestral.networks.captions import CaptionEncoder, caption_bytes, longest_caption
from ancestral.recipes.registry import catalogue

WAYS = ("upright", "lying")
SIDES = ("first", "second")


def bars(n: int, seed: int = 0) -> Images:
    """6 x 6 images of one bar, upright or lying, in the first or second half, and what a person might say of them."""
    random = np.random.default_rng(seed)
    pixels, captions = np.zeros((n, 6, 6, 1), np.uint8), []
    for i in range(n):
        way, side = random.integers(0, 2, 2)
        grid = pixels[i, :, :, 0] if way else pixels[i, :, :, 0].T
        grid[3 * side + random.integers(0, 3), 1:5] = 1
        words = random.choice(["a bar {}, {} half", "{}: one bar in the {} half"])
        captions.append(words.format(WAYS[way], SIDES[side]))
    return Images(pixels, levels=2, captions=captions)


def agrees(images: np.ndarray, way: str, side: str) -> float:
    """Share of images that show such a bar."""
    upright = np.asarray(images).reshape(-1, 6, 6).astype(float)
    grid = upright if way == "lying" else upright.transpose(0, 2, 1)
    where = (grid[:, 3:].sum((1, 2)) > grid[:, :3].sum((1, 2))) == (side == "second")
    # A bar along the rows of `grid` has rows that are full or empty.
    return float((where & (grid.sum(2).var(1) > grid.sum(1).var(1))).mean())


@functools.cache
def model(name: str) -> Any:
    options: dict[str, dict[str, Any]] = {
        "any-order": {"width": 32, "depth": 2, "dropout": 0.0},
        "var": {
            "width": 32, "depth": 2, "heads": 2, "dropout": 0.0, "codes": 16, "scales": (1, 3), "multipliers": (1,),
            "channels": 16, "perceptual": 0.0,
        },
    }  # fmt: skip
    training = {"steps": 400, "batch_size": 64, "lr": 5e-3, "quiet": True, "validation": 0, "ema": None}
    return catalogue()[name](**options[name]).fit(bars(400), **training)


@pytest.mark.parametrize("name", ["any-order", "var"])
def test_images_follow_their_captions(name: str) -> None:
    drawn = []
    for way in WAYS:
        for side in SIDES:
            images = model(name).sample(24, caption=f"a bar {way}, {side} half", guidance=1.0, seed=1)
            drawn.append(agrees(images, way, side))
    assert min(drawn) > 0.5 and np.mean(drawn) > 0.7, drawn


def test_captions_are_told_to_all_verbs(tmp_path: Path) -> None:
    one, held = model("any-order"), bars(60, seed=9)
    own = np.asarray(one.log_prob(held, caption=True))
    none = np.asarray(one.log_prob(held))
    turned = {"upright": "lying", "lying": "upright"}
    wrong = [re.sub("upright|lying", lambda m: turned[m[0]], c) for c in held.captions or ()]
    assert own.mean() > none.mean() + 0.5 > np.asarray(one.log_prob(held, caption=wrong)).mean() + 1.0
    known = np.zeros((6, 6), bool)
    known[:, :1] = True
    done = one.complete(held, known=known, caption="a bar lying, second half", guidance=1.0)
    assert (done[:, known] == held.native()[:, known]).all()
    assert agrees(done, "lying", "second") > 0.6
    one.save(tmp_path / "model")
    again = ancestral.load(tmp_path / "model")
    text = "upright: one bar in the first half"
    assert (again.sample(3, caption=text, seed=4) == one.sample(3, caption=text, seed=4)).all()
    assert one.decompress(one.compress(held.native())).shape == (60, 6, 6)
    with pytest.raises(DataError, match="2 captions for 3 items"):
        one.sample(3, caption=["a", "b"])
    with pytest.raises(DataError, match="no captions of their own"):
        one.log_prob(held.native(), caption=True)
    plain = catalogue()["any-order"](width=8, depth=1).build(held.native())
    with pytest.raises(DataError, match="knows no captions"):
        plain.sample(1, caption="a bar")
    with pytest.raises(DataError, match="guidance strengthens"):
        one.sample(1, guidance=1.0)


@pytest.mark.parametrize("name", ["maskgit", "llamagen", "mar", "xar"])
def test_captions_reach_every_system(name: str) -> None:
    """Built with other weights: what is drawn depends on the caption, and each item's own is its own."""
    record = catalogue()[name]
    data = bars(16)
    built = record(**{**record.tiny, "width": 16}).build(data)
    with torch.no_grad():
        for weight in built.generator.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    texts = ["a bar upright, first half", "", "lying: one bar in the second half"]
    values = built.tokenizer.encode(data.take(slice(0, 3)))
    told = [built.log_prob(data.take(slice(0, 3)), caption=c) for c in (texts, texts[0], None)]
    each = [np.asarray(scores) for scores in told]
    assert len(values) == 3 and each[0][0] == pytest.approx(each[1][0], abs=1e-4)
    assert each[0][1] == pytest.approx(each[2][1], abs=1e-4)
    assert abs(each[0][2] - each[1][2]) > 1e-5 and abs(each[1][0] - each[2][0]) > 1e-5


def test_an_empty_caption_is_a_withheld_one() -> None:
    encoder = CaptionEncoder(6, 8, 1, 2)
    found = encoder(caption_bytes(["", "ab", "abcdefgh", "abcdef"], 6))
    assert torch.equal(found[0], encoder.withheld) and torch.equal(found[2], found[3])
    padded = encoder(caption_bytes(["ab"], 6))
    assert torch.allclose(padded[0], found[1], atol=1e-6) and not torch.allclose(found[1], found[2])
    assert longest_caption(["", "häß"]) == 5 and longest_caption(None) == 0 and longest_caption(["x" * 999]) == 256


def test_folders_with_captions(tmp_path: Path) -> None:
    images = bars(3)
    images.save(tmp_path / "a")
    names = [name for name in sorted(p.name for p in (tmp_path / "a").iterdir())]
    (tmp_path / "a" / names[1]).with_suffix(".txt").write_text(" a bar \n")
    assert read(tmp_path / "a").captions == ("", "a bar", "")
    (tmp_path / "a" / "captions.csv").write_text(f'file_name,caption\n{names[2]},"one, two"\n')
    assert read(tmp_path / "a").captions == ("", "", "one, two")
    (tmp_path / "a" / "captions.csv").write_text("file_name,caption\nnone.png,x\n")
    with pytest.raises(DataError, match=r"row 2: there is no image 'none\.png'"):
        read(tmp_path / "a")
    (tmp_path / "a" / "captions.csv").unlink()
    rows = [{"file": names[0], "text": "first"}, {"file": names[2], "text": "last"}]
    (tmp_path / "a" / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path / "a").captions == ("first", "", "last")
    (tmp_path / "a" / "captions.jsonl").write_text("{")
    with pytest.raises(DataError, match="line 1"):
        read(tmp_path / "a")
    assert images.take([2, 0]).captions == (images.captions[2], images.captions[0])  # type: ignore[index]
    with pytest.raises(DataError, match="1 captions for 3 images"):
        read(images.native(), "images", captions=["x"])
