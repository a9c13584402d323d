"""Datasets as compressed bytes and back: the model's values, and what of a dataset no value holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ancestral.coding import decode_stream_set, decode_values, encode_stream_set, encode_values

if TYPE_CHECKING:
    from ancestral.data import Dataset
    from ancestral.model import Model

Progress = Callable[[int, int], None]


def compress(model: Model, dataset: Dataset, batch_size: int, progress: Progress | None) -> bytes:
    """The code of a dataset; see :meth:`ancestral.Model.compress`."""
    tokenizer = model.tokenizer
    side: dict[str, Any] = {}
    if dataset.labels is not None:
        side["labels"] = dataset.labels.tolist()
        side["classes"] = list(dataset.classes)
    if tokenizer.streaming:
        streams = tokenizer.streams(dataset)
        side["form"] = _new(dataset.form, tokenizer.from_streams(streams[:1]).form)
        return encode_stream_set(model.generator, streams, model.context, side=_pack(side), progress=progress)
    values, extra = tokenizer.encode_exact(dataset)
    side["form"] = _new(dataset.form, tokenizer.decode(values[:1]).form)
    return encode_values(model.generator, values, batch_size=batch_size, side=_pack(side, extra), progress=progress)


def decompress(model: Model, blob: bytes, progress: Progress | None) -> Dataset:
    """The dataset that :func:`compress` was given."""
    if model.tokenizer.streaming:
        streams, packed = decode_stream_set(model.generator, blob, progress=progress)
        side, _ = _unpack(packed)
        dataset = model.tokenizer.from_streams(streams)
    else:
        values, packed = decode_values(model.generator, blob, progress=progress)
        side, extra = _unpack(packed)
        dataset = model.tokenizer.decode_exact(values, extra)
    if "labels" in side:
        dataset.labels = np.asarray(side["labels"], np.int64)
        dataset.classes = tuple(side["classes"])
    return dataset.with_form({**dataset.form, **side.get("form", {})})


def _new(form: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """What of an outer form differs from the one that decoded data have anyway."""
    return {name: value for name, value in form.items() if name not in usual or usual[name] != value}


def _pack(side: dict[str, Any], extra: bytes = b"") -> bytes:
    text = json.dumps({k: v for k, v in side.items() if v}, ensure_ascii=False).encode()
    text = b"" if text == b"{}" else text
    return len(text).to_bytes(4, "little") + text + extra if text or extra else b""


def _unpack(packed: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(packed[:4], "little")
    return json.loads(packed[4 : 4 + size] or b"{}"), packed[4 + size :]
