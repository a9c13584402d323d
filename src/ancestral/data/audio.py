"""Sound with one channel: from wav files and arrays of samples; back to wav, sample for sample."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ancestral.data.base import Dataset, existing, files_under, positions, read_bytes, safe_names
from ancestral.errors import DataError
from ancestral.files import atomic_path

SUFFIXES = (".wav",)


class Audio(Dataset):
    """n clips of any length.

    Attributes:
        clips: the samples of every clip, int32 ``[T_i]``, from ``-2 ** (bits - 1)`` on.
        rate: samples per second.
        bits: 8 or 16 per sample.
    """

    modality = "audio"

    def __init__(
        self,
        clips: Sequence[Any],
        rate: int = 16000,
        bits: int = 16,
        labels: Any = None,
        classes: Sequence[str] = (),
        names: Sequence[str] | None = None,
        kind: str = "list",
    ) -> None:
        self.clips = [np.asarray(clip, np.int32) for clip in clips]
        self.rate, self.bits = rate, bits
        super().__init__(labels, classes, names, kind)

    def __len__(self) -> int:
        return len(self.clips)

    def take(self, indices: Any) -> Self:
        index = positions(indices, len(self))
        return type(self)([self.clips[i] for i in index], self.rate, self.bits, **self._shared(index))

    @property
    def form(self) -> dict[str, Any]:
        return super().form | {"rate": self.rate}

    def with_form(self, form: dict[str, Any]) -> Self:
        other = super().with_form(form)
        other.rate = int(form.get("rate", self.rate))
        return other

    def native(self) -> Any:
        """A list of arrays ``[T_i]``, int16, or uint8 with silence at 128 for 8 bits; one array if one was given."""
        arrays = [self._samples(clip) for clip in self.clips]
        return arrays[0] if self.kind == "single" and len(arrays) == 1 else arrays

    def _samples(self, clip: np.ndarray) -> np.ndarray:
        return clip.astype("<i2") if self.bits == 16 else (clip + 128).astype(np.uint8)

    def save(self, target: str | Path, overwrite: bool = False) -> None:
        """Write one wav file (a single clip), or a folder of them (one sub-folder per class)."""
        target = Path(target)
        if target.suffix.lower() in SUFFIXES:
            if len(self) != 1:
                raise DataError(f"{target} holds one clip and there are {len(self)}; give a folder")
            with atomic_path(target) as path:
                path.write_bytes(self.wav(0))
            return
        if target.suffix:
            raise DataError(f"sound is written as .wav, not as {target.suffix}; give a .wav file or a folder")
        with atomic_path(target, directory=True, overwrite=overwrite) as folder:
            for i, name in enumerate(safe_names(self.names, len(self), ".wav")):
                place = folder / name
                if self.labels is not None and self.classes and Path(name).parent == Path("."):
                    place = folder / self.classes[int(self.labels[i])].replace("/", "_") / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self.wav(i))

    def wav(self, i: int) -> bytes:
        """Item i as a wav file."""
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(self.bits // 8)
            file.setframerate(self.rate)
            file.writeframes(self._samples(self.clips[i]).tobytes())
        return buffer.getvalue()

    @classmethod
    def read_files(cls, files: Sequence[bytes], channel: int | None = None) -> Audio:
        """The contents of wav files.

        Args:
            files: of 8 or 16 bits, all of one kind.
            channel: the one to take, from 0, where there are several.

        Raises:
            DataError: damaged or mixed files.
        """
        return _clips([(f"clip {i}", data) for i, data in enumerate(files)], channel, "list")

    @classmethod
    def read(
        cls,
        source: Any,
        labels: Any = None,
        classes: Sequence[str] = (),
        rate: int = 16000,
        channel: int | None = None,
    ) -> Audio:
        """Read sound.

        Args:
            source: a wav file of 8 or 16 bits, a folder of them (sub-folders are class names), an array of samples
                ``[T]`` or ``[n, T]``, or a list of arrays: int16, uint8 (silence at 128), or fractions from -1 to 1,
                which are rounded to 16 bits.
            labels: one label per clip.
            classes: class names in the order of the labels' numbers.
            rate: samples per second of arrays; files tell their own.
            channel: the one to take, from 0, where there are several.

        Raises:
            DataError: missing, empty, damaged or mixed files, and samples of other kinds.
        """
        if isinstance(source, (str, Path)):
            return _from_files(existing(source), labels, classes, channel)
        array = None if isinstance(source, (list, tuple)) else np.asarray(source)
        kind = "single" if array is not None and array.ndim == 1 else "list"
        several = source if array is None else array[None] if kind == "single" else array
        read = [_from_array(np.asarray(one), i) for i, one in enumerate(several)]
        if not read or not any(len(clip) for clip, _ in read):
            raise DataError("there is no sound to read; give at least one sample")
        if len({bits for _, bits in read}) > 1:
            raise DataError("the clips have 8 and 16 bits; give all of one kind")
        return cls([clip for clip, _ in read], rate, read[0][1], labels, classes, None, kind)


def _from_array(samples: np.ndarray, item: int) -> tuple[np.ndarray, int]:
    """Samples int32 ``[T]`` and their bits."""
    if samples.ndim != 1:
        raise DataError(f"clip {item} has the shape {samples.shape}; give one channel, an array of one dimension")
    if samples.dtype == np.uint8:
        return samples.astype(np.int32) - 128, 8
    if samples.dtype.kind == "f":
        if not bool(np.isfinite(samples).all()) or float(np.abs(samples).max(initial=0.0)) > 1:
            raise DataError(f"clip {item} has samples beyond -1 to 1, or NaN; scale it")
        return np.round(samples * 32767).astype(np.int32), 16
    if samples.dtype == np.int16:
        return samples.astype(np.int32), 16
    raise DataError(f"clip {item} is of {samples.dtype}; give int16, uint8, or fractions from -1 to 1")


def _from_files(path: Path, labels: Any, classes: Sequence[str], channel: int | None) -> Audio:
    paths = files_under(path, SUFFIXES) if path.is_dir() else [path]
    if not paths:
        raise DataError(f"there is no wav file in the folder {path}; put at least one in it")
    names = [p.relative_to(path).as_posix() for p in paths] if path.is_dir() else [path.name]
    folders = {Path(name).parts[0] for name in names if len(Path(name).parts) > 1}
    if labels is None and len(folders) > 1 and all(len(Path(name).parts) > 1 for name in names):
        labels = [Path(name).parts[0] for name in names]
    kind = "folder" if path.is_dir() else "file"
    found = _clips([(str(file), read_bytes(file)) for file in paths], channel, kind)
    return Audio(found.clips, found.rate, found.bits, labels, classes, names, kind)


def _clips(files: Sequence[tuple[str, bytes]], channel: int | None, kind: str) -> Audio:
    """The clips of files, each given by what it is called and its bytes."""
    clips, facts = [], []
    for name, data in files:
        clip, rate, bits = _wav(name, data, channel)
        clips.append(clip)
        facts.append((rate, bits))
        if facts[0] != facts[-1]:
            raise DataError(
                f"{name} has {rate} samples a second of {bits} bits, {files[0][0]} {facts[0][0]} of {facts[0][1]}; "
                "convert them to one kind"
            )
    if not any(map(len, clips)):
        raise DataError(f"{files[0][0] if files else 'the list'} holds no samples; record something")
    return Audio(clips, *facts[0], kind=kind)


def _wav(path: str, content: bytes, channel: int | None) -> tuple[np.ndarray, int, int]:
    """Samples int32 ``[T]``, rate and bits of a file, given by what it is called and its bytes."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, rate, count, *_ = file.getparams()
            data = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise DataError(f"{path} is not a wav file that can be read ({error}); save it as plain PCM") from error
    if width not in (1, 2):
        raise DataError(f"{path} has {8 * width} bits per sample; convert it to 16")
    samples = np.frombuffer(data, np.uint8 if width == 1 else "<i2").astype(np.int32) - 128 * (width == 1)
    samples = samples[: len(samples) // channels * channels].reshape(-1, channels)
    if channel is None and channels > 1:
        raise DataError(f"{path} has {channels} channels; choose one with channel=0, or mix them down")
    chosen = channel or 0
    if not 0 <= chosen < channels:
        raise DataError(f"{path} has {channels} channels and no channel={chosen}; they are numbered from 0")
    return samples[:, chosen], rate, 8 * width
