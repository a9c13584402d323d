"""Fixed image tokenizers: cosine coefficients, wavelet planes, JPEG bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import ancestral
from ancestral.data import Images
from ancestral.errors import DataError
from ancestral.order import Order
from ancestral.tokenizers import Tokenizer
from ancestral.tokenizers.transforms import DCT, JPEGBytes, cosine_matrix
from ancestral.tokenizers.wavelets import WaveletPlanes, apart, drop, lift, together


def pictures(n: int = 20, side: int = 8, levels: int = 256, channels: int = 1, seed: int = 0) -> Images:
    """Smooth pictures: a slope in a random direction, and a little noise."""
    random = np.random.default_rng(seed)
    v, u = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    slope = (
        random.normal(size=(n, 1, 1, channels)) * v[None, ..., None]
        + random.normal(size=(n, 1, 1, channels)) * u[None, ..., None]
    )
    level = (slope * 0.2 + 0.5 + random.normal(size=(n, side, side, channels)) * 0.02) * (levels - 1)
    return Images(np.clip(np.rint(level), 0, levels - 1).astype(np.uint8), levels=levels)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**16))
def test_lifting_is_reversible(height: int, width: int, levels: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(-128, 128, (3, height, width))
    assert np.array_equal(drop(lift(pixels, levels), levels), pixels)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**16))
def test_colours_come_back_from_their_differences(channels: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 3, 3, channels), dtype=np.uint8)
    assert np.array_equal(together(apart(pixels)), pixels)
    grey = np.repeat(pixels[..., :1], 3, -1)
    assert np.array_equal(apart(grey), np.stack([grey[..., 0], 0 * grey[..., 0], 0 * grey[..., 0]], -1))


def test_wavelets_of_a_constant_and_of_a_slope() -> None:
    flat = lift(np.full((1, 8, 8), 7), 2)[0]
    assert (flat[:2, :2] == 7).all() and (flat[2:] == 0).all() and (flat[:, 2:] == 0).all()
    slope = lift(np.broadcast_to(2 * np.arange(8), (1, 8, 8)), 1)[0]
    assert (slope[:, 4:7] == 0).all(), "linear predictions leave nothing of a line but at its mirrored end"


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_all_planes_are_lossless_and_prefixes_get_better(levels: int) -> None:
    train, test = pictures(60, levels=levels), pictures(10, levels=levels)
    whole = WaveletPlanes(2).fit(train)
    assert whole.lossless
    values = whole.encode(test)
    assert np.array_equal(whole.decode(values).pixels, test.pixels)
    assert whole.space.coords is not None and values.shape == (10, 64 * whole.top)
    errors = []
    for planes in range(1, whole.top + 1):
        part = WaveletPlanes(2, planes).fit(train)
        assert torch.equal(part.encode(test), values[:, : 64 * planes])
        found = part.decode(part.encode(test)).pixels.astype(float)
        errors.append(float(np.square(found - test.pixels).mean()))
    assert errors[-1] == 0
    assert errors[0] > errors[len(errors) // 2] > errors[-1] or levels == 2
    assert WaveletPlanes(2, whole.top).fit(train).lossless and not WaveletPlanes(2, 1).fit(train).lossless


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_wavelet_planes_of_colours(channels: int) -> None:
    train, test = pictures(40, channels=channels), pictures(5, channels=channels, seed=1)
    whole, first = WaveletPlanes(2).fit(train), WaveletPlanes(2, 2).fit(train)
    values = whole.encode(test)
    assert np.array_equal(whole.decode(values).pixels, test.pixels)
    assert values.shape == (5, 64 * channels * whole.top)
    assert torch.equal(first.encode(test), values[:, : 64 * channels * 2])
    assert whole.space.coords is not None and len(set(whole.space.coords)) == whole.space.n


def test_long_images_come_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="16,384 tokens"):
        WaveletPlanes(2, 4).fit(pictures(2, side=64))


def test_wavelet_tokens_that_cannot_stand_there() -> None:
    tokenizer = WaveletPlanes(1).fit(pictures(5))
    anything = torch.randint(0, 5, (4, tokenizer.space.n), generator=torch.Generator().manual_seed(0))
    assert tokenizer.decode(anything).pixels.shape == (4, 8, 8, 1)
    dull = Images(np.full((3, 8, 8, 1), 128, np.uint8), levels=256)
    with pytest.raises(DataError, match="no training image had"):
        WaveletPlanes(1).fit(dull).encode(pictures(5))


def test_wavelet_model_compresses_with_all_planes(tmp_path: Path) -> None:
    data = pictures(40, side=4, levels=4)
    options = {"width": 16, "depth": 1, "heads": 2, "levels": 1, "steps": 5, "quiet": True}
    model = ancestral.fit(data, recipe="wavelet-ar", planes=None, **options)
    assert "compress" in model.verbs() and model.log_prob(data).of == "items"
    assert np.array_equal(model.decompress(model.compress(data)), data.native())
    model.save(tmp_path / "model")
    assert "compress" in ancestral.load(tmp_path / "model").verbs()
    few = ancestral.fit(data, recipe="wavelet-ar", planes=1, **options)
    assert "compress" not in few.verbs() and few.log_prob(data).of == "codes"


def test_cosine_matrix_is_orthonormal_and_known() -> None:
    for n in (1, 2, 5, 8):
        assert np.allclose(cosine_matrix(n) @ cosine_matrix(n).T, np.eye(n))
    assert np.allclose(cosine_matrix(4)[0], 0.5)
    assert np.allclose(cosine_matrix(2), np.array([[1, 1], [1, -1]]) / np.sqrt(2))


def test_cosine_coefficients_come_coarse_to_fine() -> None:
    train, test = pictures(40), pictures(10, seed=1)
    fine = DCT(bins=4096).fit(train)
    assert np.abs(fine.decode(fine.encode(test)).pixels.astype(int) - test.pixels).max() <= 1
    coarse = DCT(bins=64).fit(train)
    values = coarse.encode(test)
    assert values.shape == (10, 64) and int(values.min()) >= 0 and int(values.max()) < 64
    errors = []
    order = Order.frequency(8, 8)
    for known in (1, 6, 64):  # later coefficients at zero
        cut = torch.where(order.rank < known, values, 32)
        errors.append(float(np.square(coarse.decode(cut).pixels.astype(float) - test.pixels).mean()))
    assert errors[0] > 2 * errors[1] > 2 * errors[2]
    with pytest.raises(DataError, match="grey images"):
        DCT().fit(pictures(3, channels=3))
    again = Tokenizer.from_state(coarse.state())
    assert torch.equal(again.encode(test), values)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_bytes_are_those_of_the_file(channels: int) -> None:
    images = pictures(12, side=16, channels=channels)
    tokenizer = JPEGBytes(quality=60).fit(images)
    values = tokenizer.encode(images)
    decoded = tokenizer.decode(values).pixels
    for i, image in enumerate(images.pixels):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if channels == 1 else image).save(file, "JPEG", quality=60, subsampling=0)
        seen = np.asarray(Image.open(io.BytesIO(file.getvalue()))).reshape(image.shape)
        assert np.array_equal(decoded[i], seen), "what Pillow makes of the whole file"
        assert int((values[i] < 256).sum()) == len(file.getvalue()) - len(tokenizer.header) - 2
    assert float(np.abs(decoded.astype(float) - images.pixels).mean()) < 6
    assert (tokenizer.space.stop == 256 and int(values.max()) == 256) or len({len(v) for v in values}) == 1
    again = Tokenizer.from_state(tokenizer.state())
    assert torch.equal(again.encode(images), values)
    fresh = Tokenizer.from_state(tokenizer.state())
    assert np.array_equal(fresh.decode(values).pixels, decoded), "the header comes back without any image"


def test_jpeg_samples_that_are_no_files_decode_to_something() -> None:
    tokenizer = JPEGBytes().fit(pictures(5, side=16))
    noise = torch.randint(0, 257, (20, tokenizer.space.n), generator=torch.Generator().manual_seed(0))
    assert tokenizer.decode(noise).pixels.shape == (20, 16, 16, 1)
    empty = tokenizer.decode(torch.full((1, tokenizer.space.n), 256))
    assert empty.pixels.shape == (1, 16, 16, 1)
    with pytest.raises(DataError, match="bytes where the model takes"):
        JPEGBytes(length=3).fit(pictures(3, side=16)).encode(pictures(3, side=16))
    with pytest.raises(ValueError, match="1 to 95"):
        JPEGBytes(quality=100)
