"""Datasets as compressed bytes and back: the model's values, and what of a dataset no value holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ancestral.coding import decode, decode_stream_set, encode_stream_set, encode_values
from ancestral.coding.container import read_varint, varint
from ancestral.coding.labels import decode_labels, encode_labels
from ancestral.errors import UnsupportedError
from ancestral.inputs import known_labels
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.data import Dataset
    from ancestral.model import Model

Progress = Callable[[int, int], None]


def compress(model: Model, dataset: Dataset, batch_size: int, progress: Progress | None) -> bytes:
    """The code of a dataset; see :meth:`ancestral.Model.compress`."""
    tokenizer, generator = model.tokenizer, model.generator
    if not tokenizer.lossless:
        raise UnsupportedError(
            f"{model.name} has a lossy tokenizer, which cannot give the same data back; compress with a recipe over "
            "pixels, such as conv-nade"
        )
    side: dict[str, Any] = {}
    labels: Tensor | None = None
    coded = b""
    if dataset.labels is not None:
        labels = None if tokenizer.streaming else known_labels(tokenizer, dataset)
        if labels is None:
            coded = encode_labels(dataset.labels, len(dataset.classes))
        if labels is None or dataset.classes != tokenizer.classes:
            side["classes"] = list(dataset.classes)
    if tokenizer.streaming:
        streams, extra = tokenizer.streams_exact(dataset)
        side["form"] = _new(dataset.form, tokenizer.from_streams(streams[:1]).form)
        return encode_stream_set(generator, streams, model.context, side=_pack(side, coded, extra), progress=progress)
    values, extra = tokenizer.encode_exact(dataset)
    side["form"] = _new(dataset.form, tokenizer.decode(values[:1]).form)
    packed = _pack(side, coded, extra)
    return encode_values(
        generator, values, Condition(label=labels), batch_size=batch_size, side=packed, progress=progress
    )


def decompress(model: Model, blob: bytes, progress: Progress | None) -> Dataset:
    """The dataset that :func:`compress` was given."""
    labels: Tensor | None = None
    if model.tokenizer.streaming:
        streams, packed = decode_stream_set(model.generator, blob, progress=progress)
        side, coded, extra = _unpack(packed)
        dataset = model.tokenizer.from_streams_exact(streams, extra)
    else:
        decoded = decode(model.generator, blob, progress=progress)
        side, coded, extra = _unpack(decoded.side)
        labels = decoded.labels
        dataset = model.tokenizer.decode_exact(decoded.values, extra)
    classes = tuple(side.get("classes", model.tokenizer.classes))
    if labels is not None:
        own = [classes.index(name) if name in classes else -1 for name in model.tokenizer.classes]
        dataset.labels, dataset.classes = np.array(own, np.int64)[labels.numpy()], classes
    elif "classes" in side:
        dataset.labels, dataset.classes = decode_labels(coded, len(dataset), len(classes)), classes
    return dataset.with_form({**dataset.form, **side.get("form", {})})


def _new(form: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """What of an outer form differs from the one that decoded data have anyway."""
    return {name: value for name, value in form.items() if name not in usual or usual[name] != value}


def _pack(side: dict[str, Any], coded: bytes, extra: bytes) -> bytes:
    """JSON and byte strings in one: the length of each, then each; nothing if all are empty."""
    content = {name: value for name, value in side.items() if value or name == "classes"}
    text = json.dumps(content, ensure_ascii=False).encode() if content else b""
    sections = (text, coded, extra)
    return b"".join([*(varint(len(s)) for s in sections), *sections]) if any(sections) else b""


def _unpack(packed: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """What :func:`_pack` packed."""
    if not packed:
        return {}, b"", b""
    sizes, at = [], 0
    for _ in range(3):
        size, at = read_varint(packed, at)
        sizes.append(size)
    ends = [at + sum(sizes[: i + 1]) for i in range(3)]
    text, coded, extra = (packed[end - size : end] for end, size in zip(ends, sizes))
    return json.loads(text or b"{}"), coded, extra
