"""What users hand to the verbs, in the model's terms: class labels, orders, and data with gaps."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data import Dataset, read
from ancestral.errors import DataError, UnsupportedError
from ancestral.generator import Generator
from ancestral.networks.captions import caption_bytes
from ancestral.order import NAMED, Order, resolve
from ancestral.space import Condition
from ancestral.tokenizers import Tokenizer


def check_guidance(guidance: float, told: Condition) -> None:
    """Refuse guidance without a label or caption to strengthen.

    Raises:
        DataError: there is none, or the scale is no finite number.
    """
    if not math.isfinite(guidance):
        raise DataError(f"guidance={guidance} is no scale; give a finite number, for instance 1.5")
    if guidance and told.label is None and told.text is None:
        raise DataError("guidance strengthens a label or caption, and none was given; add label= or caption=")


def check_drawing(options: Mapping[str, Any], guidance: float = 0.0, **whole: Any) -> None:
    """Refuse what no drawing can use, before any work is done.

    Args:
        options: those of :class:`ancestral.decoding.walk.Draw`, which checks their ranges.
        guidance: scale of guidance.
        whole: arguments that are whole numbers, such as ``n`` and ``seed``.

    Raises:
        DataError: an unknown option, a wrong type, or fewer items than none.
    """
    for name, value in whole.items():
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise DataError(f"{name}={value!r} must be a whole number")
    if whole.get("n", 0) < 0:
        raise DataError(f"cannot draw {whole['n']} items; give n=0 or more")
    if whole.get("draws", 1) < 1:
        raise DataError(f"draws={whole['draws']} must be at least 1")
    if whole.get("length", 0) < 0:
        raise DataError(f"length={whole['length']} must be at least 0")
    for name, value in {"guidance": guidance, **options}.items():
        if name not in ("guidance", *_DRAWING):
            close = difflib.get_close_matches(name, _DRAWING, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise DataError(f"there is no option {name}={hint}; drawing takes {', '.join(_DRAWING)}")
        kind = "a whole number" if name == "top_k" else "a number"
        wanted = "__index__" if name == "top_k" else "__float__"
        if value is not None and (isinstance(value, bool) or not hasattr(value, wanted)):
            raise DataError(f"{name}={value!r} must be {kind}")


def checked(tokenizer: Tokenizer, length: int | None, decoder: Any) -> dict[str, int]:
    """``length`` among the whole numbers to check, if it was given.

    Raises:
        DataError: a length for items that have one of their own, or a decoder that is none.
    """
    if decoder is not None and (isinstance(decoder, type) or not callable(decoder)):
        named = decoder.__name__ if isinstance(decoder, type) else repr(decoder)
        raise DataError(f"decoder={named} is none; give an instance, such as ancestral.decoding.search.Beam(4)")
    if length is None:
        return {}
    if not tokenizer.streaming:
        raise DataError("length= is for models of streams; the items of this model have a size of their own")
    return {"length": length}


_DRAWING = ("temperature", "top_k", "top_p", "min_p")


def class_labels(tokenizer: Tokenizer, label: Any, n: int) -> Tensor | None:
    """Class numbers int64 ``[n]`` of one label or one per item, by name or number; None stays None.

    Raises:
        DataError: the model has no classes, or not this one.
    """
    if label is None or label is False:
        return None
    classes = tokenizer.space.classes
    if not classes:
        raise DataError("this model knows no class labels; fit it on data that have them")
    names = list(getattr(tokenizer, "classes", ()))
    if label is True:
        raise DataError("there are no items whose own label could be told; give label= a class")
    each = list(label) if isinstance(label, (list, tuple, np.ndarray, Tensor)) else [label] * n
    if len(each) != n:
        raise DataError(f"there are {len(each)} labels for {n} items; give one, or one per item")
    found = []
    for one in each:
        number = names.index(str(one)) if str(one) in names else None
        if number is None and not isinstance(one, str) and 0 <= int(one) < classes:
            number = int(one)
        if number is None:
            raise DataError(f"there is no class {one!r}; the classes are {', '.join(names) or f'0 to {classes - 1}'}")
        found.append(number)
    return torch.tensor(found, dtype=torch.int64)


def item_labels(tokenizer: Tokenizer, label: Any, dataset: Dataset) -> Tensor | None:
    """As :func:`class_labels`, for the items of a dataset; ``label=True`` takes their own, matched by name.

    Raises:
        DataError: the data have no labels, or the model does not know one of their classes.
    """
    if label is not True:
        return class_labels(tokenizer, label, len(dataset))
    if dataset.labels is None:
        raise DataError("the data have no labels of their own; give label= a class, or one per item")
    return class_labels(tokenizer, [dataset.classes[i] for i in dataset.labels], len(dataset))


def known_labels(tokenizer: Tokenizer, dataset: Dataset) -> Tensor | None:
    """The dataset's own labels as the model numbers its classes, int64 ``[n]``; matched by name.

    Returns:
        None without labels, or if the model does not know all of the dataset's classes.
    """
    if dataset.labels is None or not tokenizer.space.classes or not set(dataset.classes) <= set(tokenizer.classes):
        return None
    number = {name: i for i, name in enumerate(tokenizer.classes)}
    return torch.tensor([number[name] for name in dataset.classes], dtype=torch.int64)[torch.as_tensor(dataset.labels)]


def training_labels(tokenizer: Tokenizer, dataset: Dataset) -> Tensor | None:
    """As :func:`known_labels`, for data to learn from; None if the data have no labels or the model no classes.

    Raises:
        DataError: a class that the model does not know.
    """
    labels = known_labels(tokenizer, dataset)
    if labels is None and dataset.labels is not None and tokenizer.space.classes:
        odd = next(name for name in dataset.classes if name not in tokenizer.classes)
        raise DataError(
            f"the data have the class {odd!r}, which is none of the model's ({', '.join(tokenizer.classes)}); leave "
            "its items out, or rename it"
        )
    return labels


def condition_of(tokenizer: Tokenizer, label: Any, caption: Any, n: int, dataset: Dataset | None = None) -> Condition:
    """What ``n`` items are told: classes (:func:`class_labels`, or :func:`item_labels` of a dataset) and captions.

    Args:
        tokenizer: of the model.
        label: one class or one per item, ``True`` for the dataset's own.
        caption: one text or one per item, ``True`` for the dataset's own.
        n: number of items.
        dataset: the items, where there are some.

    Raises:
        DataError: the model knows no labels or captions, or not these.
    """
    labels = class_labels(tokenizer, label, n) if dataset is None else item_labels(tokenizer, label, dataset)
    if caption is None or caption is False:
        return Condition(label=labels)
    if not tokenizer.captions:
        raise DataError("this model knows no captions; fit it on images that have them (captions.csv, or .txt files)")
    if caption is True:
        if dataset is None or dataset.captions is None:
            raise DataError("the data have no captions of their own; give caption= a text, or one per item")
        caption = dataset.captions
    each = [caption] * n if isinstance(caption, str) else [str(text) for text in caption]
    if len(each) != n:
        raise DataError(f"there are {len(each)} captions for {n} items; give one, or one per item")
    return Condition(label=labels, text=caption_bytes(each, tokenizer.captions))


def order_for(generator: Generator, order: str | Order, n: int, name: str) -> Order:
    """The order that a user asked for.

    Args:
        generator: built.
        order: one for all, or one per item, or the name of one.
        n: number of items.
        name: what the model is called in errors.

    Raises:
        DataError: no such order, or not of these sites.
        UnsupportedError: the model was trained in another order only.
    """
    try:
        found = resolve(order, generator.space)
        generator.network.check(found)
    except (ValueError, TypeError, IndexError) as error:
        known = f" (named orders: {', '.join(NAMED)})" if isinstance(order, str) and order in NAMED else ""
        raise DataError(f"order {order!r} does not suit this model: {error}{known}") from error
    if found.batched and len(found.rank) != n:
        raise DataError(f"there are {len(found.rank)} orders for {n} items; give one for all, or one per item")
    if not generator.any_order and not torch.equal(found.rank, generator.order.scoring().rank):
        raise UnsupportedError(
            f"{name} was trained in one order only and cannot follow {order!r}; an any-order recipe such as "
            "any-order can"
        )
    return found


def named_sites(tokenizer: Tokenizer, known: str | Sequence[str]) -> np.ndarray | None:
    """Known sites by name: bool, of the sites' shape; None if there is no such name.

    Args:
        tokenizer: fitted.
        known: top, bottom, left or right half of images; or columns of a table, separated by commas or listed.

    Raises:
        DataError: halves of what has no halves, or a list with something else than columns in it.
    """
    shape = tuple(getattr(tokenizer, "shape", ())[:2]) if tokenizer.modality == "images" else tokenizer.space.shape
    halves = ("top", "bottom", "left", "right")
    columns: dict[str, Any] | None = getattr(tokenizer, "columns", None)
    if isinstance(known, str) and known in halves and columns is None:
        if len(shape) != 2:
            raise DataError(f"{known} is a half of an image, and this model's sites have the shape {shape}")
        height, width = shape
        mask = np.zeros(shape, bool)
        half = {
            "top": np.s_[: height // 2, :],
            "bottom": np.s_[height - height // 2 :, :],
            "left": np.s_[:, : width // 2],
            "right": np.s_[:, width - width // 2 :],
        }
        mask[half[known]] = True
        return mask
    if columns is None:
        return None
    chosen = np.zeros(tokenizer.space.n, bool)
    for name in known.split(",") if isinstance(known, str) else known:
        if name.strip() not in columns:
            raise DataError(f"there is no column {name.strip()!r} to be known; there are {', '.join(columns)}")
        chosen[columns[name.strip()]] = True
    return chosen


def split_gaps(tokenizer: Tokenizer, data: Any, known: Any) -> tuple[Dataset, Tensor, Tensor, Tensor | None]:
    """Dataset, values ``[n, N, *event]`` and known sites bool ``[n, N]`` of data with gaps.

    The mask of images may be one of pixels where these are not the sites: it comes back as the fourth, bool
    ``[n, H, W]``, and sites are known where no gap has a part in them. ``known="coarse"`` means that the images are
    smaller than the model's, and its coarser maps known.
    """
    if isinstance(known, str) and known == "coarse":
        return (*tokenizer.coarse(read(data, tokenizer.modality).loaded()), None)
    array = data if isinstance(data, np.ndarray) else None
    if array is not None and tokenizer.modality == "images":
        gaps = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else np.zeros(array.shape, bool)
        plain = np.ma.getdata(array)
        if plain.dtype.kind == "f":
            gaps = gaps | np.isnan(plain)
        if gaps.any():
            data = np.where(gaps, 0, plain).astype(np.uint8)
            known = ~gaps if known is None else np.asarray(known, bool) & ~gaps
    dataset = read(data, tokenizer.modality).loaded()
    values = tokenizer.encode(dataset)
    mask = tokenizer.known(dataset)
    mask = mask.flatten(2).all(-1) if mask.dim() > 2 else mask
    if known is not None:
        shown = torch.as_tensor(np.asarray(known, bool))
        n, shape = len(values), tokenizer.space.shape
        size = getattr(tokenizer, "shape", (0, 0, 0))[:2]
        if (not tokenizer.lossless or shape != size) and _ends_with(shown, size, n) and 0 not in size:
            if shown.dim() > 2 and shown.shape[-3:-1] == size:
                shown = shown.all(-1)
            shown = shown.expand(n, *size)
            return dataset, values, mask & tokenizer.known_sites(shown), shown
        if shown.dim() == len(shape) + 2 or (shown.dim() == len(shape) + 1 and shown.shape[0] != n):
            shown = shown.all(-1)
        if tuple(shown.shape) in (shape, (tokenizer.space.n,)):
            shown = shown.reshape(1, -1).expand(n, -1)
        elif tuple(shown.shape) in ((n, *shape), (n, tokenizer.space.n)):
            shown = shown.reshape(n, -1)
        else:
            raise DataError(f"known= has the shape {tuple(shown.shape)}; give {shape} for all items or {(n, *shape)}")
        mask = mask & shown
    return dataset, values, mask, None


def _ends_with(mask: Tensor, size: tuple[int, ...], n: int) -> bool:
    """Whether a mask is one of ``size`` pixels, for one or n items, with or without a last axis of channels."""
    shapes = [tuple(mask.shape), tuple(mask.shape[:-1])]
    return any(shape in (size, (n, *size), (1, *size)) for shape in shapes)
