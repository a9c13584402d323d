"""Images of one size: from folders, files, npz/npy archives, PIL images, arrays; back to png, npz, npy."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ancestral.data.base import Dataset, existing, files_under, positions, read_bytes, safe_names
from ancestral.data.captions import folder_captions
from ancestral.errors import DataError
from ancestral.files import atomic_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
_IMAGE_KEYS = ("images", "image", "x", "X", "data", "pixels", "arr_0")
_LABEL_KEYS = ("labels", "label", "y", "Y", "target", "targets")
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


class Images(Dataset):
    """n images of equal size.

    Attributes:
        pixels: uint8 ``[n, H, W, C]`` with C from 1 to 4 (grey, grey and alpha, RGB, RGBA).
        levels: number of grey levels K; all values are below it (256 for photographs, 2 for ink on paper).
        layout: axes of the array that :meth:`native` returns: ``nhw``, ``nhwc`` or ``nchw``.
    """

    modality = "images"

    def __init__(
        self,
        pixels: np.ndarray,
        labels: Any = None,
        classes: Sequence[str] = (),
        levels: int = 256,
        names: Sequence[str] | None = None,
        kind: str = "array",
        layout: str = "",
        captions: Sequence[str] | None = None,
    ) -> None:
        self.pixels = pixels
        self.levels = levels
        self.layout = layout or ("nhw" if pixels.shape[-1] == 1 else "nhwc")
        self.caption(captions)
        super().__init__(labels, classes, names, kind)

    def __len__(self) -> int:
        return len(self.pixels)

    def caption(self, captions: Sequence[str] | None) -> None:
        """Set the captions, one text per image; None removes them.

        Raises:
            DataError: more or fewer than images.
        """
        if captions is not None and len(captions) != len(self):
            raise DataError(f"there are {len(captions)} captions for {len(self)} images; give one per image")
        self.captions = None if captions is None else tuple(map(str, captions))

    def take(self, indices: Any) -> Self:
        index = positions(indices, len(self))
        captions = None if self.captions is None else [self.captions[i] for i in index]
        shared = self._shared(index)
        return type(self)(self.pixels[index], levels=self.levels, layout=self.layout, captions=captions, **shared)

    @property
    def form(self) -> dict[str, Any]:
        return super().form | {"layout": self.layout}

    def with_form(self, form: dict[str, Any]) -> Self:
        other = super().with_form(form)
        if form.get("layout") in ("nhwc", "nchw") or (form.get("layout") == "nhw" and self.pixels.shape[-1] == 1):
            other.layout = form["layout"]
        return other

    def native(self) -> Any:
        """A list of PIL images if PIL images were given, else a uint8 array in the layout of the source."""
        if self.kind == "pil":
            return [self.picture(i) for i in range(len(self))]
        if self.layout == "nhw":
            return self.pixels[..., 0]
        return self.pixels.transpose(0, 3, 1, 2) if self.layout == "nchw" else self.pixels

    def picture(self, i: int) -> Any:
        """Item i as a PIL image, its levels stretched to 0..255."""
        from PIL import Image

        pixels = self.pixels[i]
        if self.levels < 256:
            pixels = np.round(pixels * (255 / (self.levels - 1))).astype(np.uint8)
        mode = _MODES[pixels.shape[-1]]
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if mode == "L" else pixels), mode=mode)

    def save(self, target: str | Path, overwrite: bool = False) -> None:
        """Write a folder of png (one sub-folder per class), one png (a single image), npz or npy.

        Fewer than 256 levels are stretched in a png for the eye; its ``levels`` text entry lets :func:`read`
        undo that exactly. A folder that is not empty is refused unless ``overwrite``.
        """
        target = Path(target)
        suffix = target.suffix.lower()
        if suffix == ".npz":
            content: dict[str, np.ndarray] = {"images": self.pixels, "levels": np.array(self.levels)}
            if self.labels is not None:
                content |= {"labels": self.labels, "classes": np.array(self.classes, dtype=np.str_)}
            with atomic_path(target) as path, path.open("wb") as handle:
                np.savez_compressed(handle, **content)  # type: ignore[arg-type]
        elif suffix == ".npy":
            with atomic_path(target) as path, path.open("wb") as handle:
                np.save(handle, self.pixels)
        elif suffix == ".png":
            if len(self) != 1:
                raise DataError(f"{target} holds one image and there are {len(self)}; give a folder, .npz or .npy")
            with atomic_path(target) as path:
                path.write_bytes(self.png(0))
        elif suffix in SUFFIXES:
            raise DataError(f"images are written losslessly, not as {suffix}; give .png, .npz, .npy or a folder")
        else:
            self._save_folder(target, overwrite)

    def _save_folder(self, target: Path, overwrite: bool) -> None:
        names = safe_names(self.names, len(self), ".png")
        with atomic_path(target, directory=True, overwrite=overwrite) as folder:
            for i, name in enumerate(names):
                place = folder / name
                if self.labels is not None and self.classes and Path(name).parent == Path("."):
                    place = folder / self.classes[int(self.labels[i])].replace("/", "_") / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self.png(i))

    def png(self, i: int) -> bytes:
        """Item i as a png file, which :meth:`read` gives back exactly."""
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        if self.levels < 256:
            info.add_text("levels", str(self.levels))
        buffer = io.BytesIO()
        self.picture(i).save(buffer, format="PNG", pnginfo=info)
        return buffer.getvalue()

    @classmethod
    def read(
        cls,
        source: Any,
        labels: Any = None,
        classes: Sequence[str] = (),
        levels: int | None = None,
        size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        key: str | None = None,
        captions: Sequence[str] | None = None,
    ) -> Images:
        """Read images of one size.

        Args:
            source: a folder (sub-folders are class names), an image file, npz, npy, a PIL image or list of
                them, an array ``[n, H, W]``, ``[n, H, W, C]`` or ``[n, C, H, W]``, a list of arrays, a pair
                (images, labels) or a dict with those entries.
            labels: one label per image, if the source has none.
            classes: class names in the order of the labels' numbers.
            levels: number of grey levels; by default noted from the data. Fractions in [0, 1] are rounded to
                it.
            size: resize every image (files and PIL only) to this height and width in pixels.
            channels: convert every image (files and PIL only) to 1, 3 or 4 channels.
            key: which array of an npz to read (its labels are then looked for under the matching name).
            captions: one text per image; a folder has them in ``captions.csv``, ``captions.jsonl`` (``file_name``,
                ``caption``) or a ``.txt`` beside each image, see :func:`ancestral.data.captions.folder_captions`.

        Raises:
            DataError: missing, empty or corrupt files, mixed sizes, values that are not grey levels.
        """
        if captions is not None:
            images = cls.read(source, labels, classes, levels, size, channels, key)
            images.caption(captions)
            return images
        if levels is not None and not 2 <= levels <= 256:
            raise DataError(f"levels={levels} does not fit 8-bit images; choose 2 to 256")
        if size is not None and min(np.atleast_1d(size)) < 1:
            raise DataError(f"size={size} is no size of an image; give its side in pixels, or height and width")
        pictures = {"levels": levels, "size": size, "channels": channels}
        if isinstance(source, (str, Path)):
            path = existing(source)
            if path.is_dir():
                return _from_folder(path, labels, classes, pictures)
            if path.suffix.lower() in (".npz", ".npy"):
                array, found = _load_numpy(path, key)
                labels = found.get("labels") if labels is None else labels
                levels = found.get("levels") if levels is None else levels
                return _from_array(array, labels, classes or found.get("classes", ()), levels, str(path), "array")
            return _from_pictures([path], [path.name], labels, classes, pictures, "file")
        if isinstance(source, dict):
            array = _entry(source, _IMAGE_KEYS, "the dict", key)
            labels = next((source[k] for k in _LABEL_KEYS if k in source), None) if labels is None else labels
            return cls.read(array, labels, classes, levels, size, channels)
        if isinstance(source, tuple) and len(source) == 2 and np.ndim(source[1]) == 1 and np.ndim(source[0]) >= 3:
            return cls.read(source[0], source[1], classes, levels, size, channels)
        if _is_picture(source):
            source = [source]
        if isinstance(source, (list, tuple)):
            if not source:
                raise DataError("the list of images is empty; give at least one image")
            if all(_is_picture(s) for s in source):
                return _from_pictures(list(source), None, labels, classes, pictures, "pil")
            if all(isinstance(s, (str, Path)) for s in source):
                paths = [existing(s) for s in source]
                return _from_pictures(paths, None, labels, classes, pictures, "files")
            source = _stack(source)
        return _from_array(source, labels, classes, levels, "the array", "array")


def _is_picture(item: Any) -> bool:
    return hasattr(item, "getbands") and hasattr(item, "convert")  # a PIL image, without importing PIL


def _stack(items: Sequence[Any]) -> np.ndarray:
    arrays = [_plain(a) for a in items]
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise DataError(
                f"images differ in size: item 0 is {arrays[0].shape} and item {i} is {array.shape}; "
                "bring them to one size first"
            )
    return np.stack(arrays)


def _plain(array: Any) -> np.ndarray:
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


def _entry(content: Any, keys: Sequence[str], where: str, key: str | None) -> Any:
    """The images of a dict or npz: by the given key, a usual key, or its training half."""
    present = list(content.keys())
    if key is not None:
        if key not in present:
            raise DataError(f"{where} has no array {key!r}; it has {', '.join(present) or 'none'}")
        return content[key]
    for candidate in [*keys, *(f"{k}_train" for k in keys), *(f"train_{k}" for k in keys)]:
        if candidate in present:
            return content[candidate]
    raise DataError(f"{where} has no array named images; it has {', '.join(present) or 'none'}: choose with key=")


def _load_numpy(path: Path, key: str | None) -> tuple[np.ndarray, dict[str, Any]]:
    """The images of an npz or npy file, and its labels, classes and levels where present."""
    data = read_bytes(path)
    try:
        if path.suffix.lower() == ".npy":
            return np.load(io.BytesIO(data), allow_pickle=False), {}
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            array = _entry(archive, _IMAGE_KEYS, str(path), key)
            found: dict[str, Any] = {}
            part = "_train" if key is None else (key[key.rindex("_") :] if "_" in key else "")
            tries = [*(k + part for k in _LABEL_KEYS), *(part[1:] + "_" + k for k in _LABEL_KEYS)]
            for name in (*_LABEL_KEYS, *tries) if key is None else (*tries, *_LABEL_KEYS):
                if name in archive and np.shape(archive[name])[:1] == array.shape[:1]:
                    found["labels"] = archive[name]
                    break
            if "classes" in archive:
                found["classes"] = [str(c) for c in archive["classes"]]
            if "levels" in archive:
                found["levels"] = int(archive["levels"])
            return array, found
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            f"cannot read arrays from {path}; it is damaged or holds Python objects: save plain numeric arrays again"
        ) from error


def _from_array(array: Any, labels: Any, classes: Sequence[str], levels: int | None, where: str, kind: str) -> Images:
    array = _plain(array)
    if array.dtype.kind not in "uibf":
        raise DataError(f"{where} holds {array.dtype}, not numbers; give grey levels 0 to 255")
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise DataError(
            f"{where} has shape {tuple(array.shape)}; images are n x height x width or n x height x width "
            "x channels, "
            "with at least one image"
        )
    layout = "nhw" if array.ndim == 3 else "nhwc"
    if array.ndim == 4 and array.shape[-1] > 4:
        if array.shape[1] > 4:
            raise DataError(
                f"{where} has shape {tuple(array.shape)}: neither the second nor the last axis is 1-4 channels"
            )
        array, layout = array.transpose(0, 2, 3, 1), "nchw"
    pixels, levels = _grey_levels(array[..., None] if layout == "nhw" else array, levels, where)
    return Images(pixels, labels, classes, levels, kind=kind, layout=layout)


def _grey_levels(array: np.ndarray, levels: int | None, where: str) -> tuple[np.ndarray, int]:
    """uint8 grey levels and their number; refuses what is not whole numbers from 0 to 255."""
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            item = int(np.argwhere(~np.isfinite(array))[0][0])
            raise DataError(f"{where} has a NaN or infinite value in image {item}; drop or mend that image")
        if not bool((array == np.round(array)).all()):
            if levels is None or array.min() < 0 or array.max() > 1:
                raise DataError(
                    f"{where} holds fractions from {array.min():g} to {array.max():g}, not grey levels; "
                    "convert with "
                    "(x * 255).round().astype('uint8'), or scale to [0, 1] and give levels= to round to "
                    "that many"
                )
            array = np.round(array * (levels - 1))
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise DataError(f"{where} has values from {low} to {high}; grey levels are 0 to 255")
    if levels is None:
        # Few levels, as in scikit-learn's digits (0..16) or binary drawings, are kept; photographs have all
        # 256.
        levels = max(high + 1, 2) if high < 64 else 256
    if high >= levels:
        raise DataError(f"{where} has the value {high}, which is not below levels={levels}; give a larger levels=")
    return np.ascontiguousarray(array).astype(np.uint8), levels


def _from_folder(folder: Path, labels: Any, classes: Sequence[str], options: dict[str, Any]) -> Images:
    paths = files_under(folder, SUFFIXES)
    if not paths:
        raise DataError(f"there is no image in the folder {folder}; it takes {', '.join(SUFFIXES)}")
    names = [p.relative_to(folder).as_posix() for p in paths]
    parents = [str(Path(n).parent.as_posix()) for n in names]
    if labels is None and "." not in parents:
        # Sub-folders are class names. A lone one is a folder around the images rather than a class.
        labels = parents if len(set(parents)) > 1 else None
    images = _from_pictures(paths, names, labels, classes, options, "folder")
    images.caption(folder_captions(folder, names))
    return images


def _from_pictures(
    sources: list[Any],
    names: list[str] | None,
    labels: Any,
    classes: Sequence[str],
    options: dict[str, Any],
    kind: str,
) -> Images:
    size, channels, levels = options["size"], options["channels"], options["levels"]
    if channels not in (None, 1, 2, 3, 4):
        raise DataError(f"channels={channels} is none of 1, 2, 3, 4")
    arrays: list[np.ndarray] = []
    modes: list[int] = []
    grey: list[int] = []
    titles = [str(s) if isinstance(s, Path) else f"image {i}" for i, s in enumerate(sources)]
    for source, title in zip(sources, titles):
        array, own_levels = _decode(source, title, size, channels)
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            (h0, w0), (h, w) = arrays[0].shape[:2], array.shape[:2]
            raise DataError(
                f"images differ in size: {titles[0]} is {w0}x{h0} and {title} is {w}x{h} (width x height); "
                "give size= to resize all"
            )
        arrays.append(array)
        modes.append(array.shape[2])
        grey.append(own_levels)
    wide = max(modes) if len(set(modes)) == 1 else _common(set(modes))
    pixels = np.stack([_widen(a, wide) for a in arrays])
    found = grey[0] if len(set(grey)) == 1 else 256
    if found < 256:
        pixels = np.round(pixels * ((found - 1) / 255)).astype(np.uint8)
    if levels is not None and levels != found:
        pixels, found = _grey_levels(pixels, levels, titles[0])
    return Images(pixels, labels, classes, found, names, kind)


def _decode(source: Any, title: str, size: Any, channels: int | None) -> tuple[np.ndarray, int]:
    """One image as uint8 ``[H, W, C]`` stretched to 0..255, and its number of grey levels."""
    from PIL import Image

    try:
        picture = source if _is_picture(source) else Image.open(io.BytesIO(read_bytes(source)))
        levels = 2 if picture.mode == "1" else int(getattr(picture, "text", {}).get("levels", 256))
        picture.load()
    except DataError:
        raise
    except Exception as error:  # Pillow raises a different kind for every format
        raise DataError(
            f"{title} is not a readable image (damaged or of unknown format); remove or replace it"
        ) from error
    if picture.mode.startswith(("I", "F")):
        raise DataError(f"{title} has more than 8 bits per channel (mode {picture.mode}); convert it to 8 bits first")
    if channels is not None:
        mode = _MODES[channels]
    elif picture.mode in _MODES.values():
        mode = picture.mode
    elif picture.mode == "1":
        mode = "L"
    else:  # palettes, CMYK and the like
        mode = "RGBA" if "transparency" in picture.info else "RGB"
    if picture.mode != mode:
        picture = picture.convert(mode)
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        if (picture.height, picture.width) != (height, width):
            picture, levels = picture.resize((width, height), Image.Resampling.LANCZOS), 256
    array = np.asarray(picture)
    return (array[..., None] if array.ndim == 2 else array), levels if 2 <= levels <= 256 else 256


def _common(modes: set[int]) -> int:
    """The fewest channels that hold images of all these channel counts."""
    return 4 if modes & {2, 4} and modes & {3, 4} else max(modes)


def _widen(array: np.ndarray, channels: int) -> np.ndarray:
    """Add colour or alpha channels without changing how the image looks."""
    have = array.shape[2]
    if have == channels:
        return array
    alpha = array[..., -1:] if have in (2, 4) else np.full_like(array[..., :1], 255)
    colour = array[..., :1] if have in (1, 2) else array[..., :3]
    if channels >= 3 and colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    return np.concatenate([colour, alpha], axis=2) if channels in (2, 4) else colour
