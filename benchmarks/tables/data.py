"""The tables of the benchmarks as one csv for training and one for testing: ``python data.py NAME FOLDER --data ROOT``.

Cells are the exact words of the source, stripped of the blanks around them. A split is a random 80/20 one of all
rows, by ``numpy.random.default_rng(seed).permutation``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ancestral.errors import DataError
from ancestral.files import atomic_path

# fmt: off
ADULT = [
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
]
WINE = [
    "fixed_acidity", "volatile_acidity", "citric_acid", "residual_sugar", "chlorides", "free_sulfur_dioxide",
    "total_sulfur_dioxide", "density", "pH", "sulphates", "alcohol", "quality", "colour",
]
# fmt: on


@dataclass(frozen=True)
class Source:
    """One table.

    Attributes:
        read: the root folder of the data to (names, rows).
        target: column that a classifier (words) or a regression (numbers) predicts.
        dates: columns of dates in ISO form, so that the peers may be told.
    """

    read: Callable[[Path], tuple[list[str], list[list[str]]]]
    target: str
    dates: tuple[str, ...] = ()


def _lines(path: Path) -> Iterable[list[str]]:
    if not path.exists():
        raise DataError(f"there is no {path}; give the folder of the data with --data or ANCESTRAL_DATA")
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return ([c.strip() for c in row] for row in csv.reader(io.StringIO(text)) if row)


def _adult(root: Path) -> tuple[list[str], list[list[str]]]:
    rows = [r for part in ("data", "test") for r in _lines(root / "adult" / f"adult.{part}.gz") if len(r) == len(ADULT)]
    # The labels of adult.test end with a dot.
    return ADULT, [[*r[:-1], r[-1].rstrip(".")] for r in rows]


def _airbnb(root: Path) -> tuple[list[str], list[list[str]]]:
    rows = list(_lines(root / "airbnb_nyc" / "airbnb.csv.gz"))
    return rows[0], rows[1:]


def _wine(root: Path) -> tuple[list[str], list[list[str]]]:
    rows = []
    for colour in ("red", "white"):
        rows += [[*r, colour] for r in _lines(root / "wine_quality" / f"winequality-{colour}.csv")]
    return WINE, rows


def _earthquakes(root: Path) -> tuple[list[str], list[list[str]]]:
    rows = list(_lines(root / "earthquakes" / "earthquakes-23k.csv"))
    out = []
    for date, *rest in rows[1:]:
        month, _, year = date.partition("/")
        day, _, year = year.partition("/")
        # Three rows hold a time stamp (1975-02-23T02:58:41.000Z) instead of a date.
        out.append([f"{year}-{month}-{day}" if year else date[:10], *rest])
    return rows[0], out


SOURCES = {
    "adult": Source(_adult, "income"),
    "airbnb_nyc": Source(_airbnb, "room_type", ("last_review",)),
    "wine_quality": Source(_wine, "quality"),
    "earthquakes": Source(_earthquakes, "Magnitude", ("Date",)),
}


def root_of(given: str | None) -> Path:
    """The folder of the data sets: what was given, or ``ANCESTRAL_DATA``.

    Raises:
        DataError: neither, or no such folder.
    """
    place = given or os.environ.get("ANCESTRAL_DATA", "")
    if not place or not Path(place).is_dir():
        raise DataError(f"there is no folder {place!r} of data sets; give --data or set ANCESTRAL_DATA")
    return Path(place)


def write_csv(path: Path, names: list[str], rows: Iterable[list[str]]) -> None:
    """A csv with a header, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def split(name: str, root: Path, folder: Path, seed: int = 0, rows: int | None = None) -> tuple[Path, Path]:
    """Write ``train.csv`` and ``test.csv`` of a table and return both.

    Args:
        name: of ``SOURCES``.
        root: folder of the data sets.
        folder: where the two files go.
        seed: of the split.
        rows: use only so many rows (after shuffling), for a trial.
    """
    names, content = SOURCES[name].read(root)
    order = np.random.default_rng(seed).permutation(len(content))[:rows]
    cut = round(0.8 * len(order))
    for part, chosen in (("train", order[:cut]), ("test", order[cut:])):
        write_csv(folder / f"{part}.csv", names, (content[i] for i in chosen))
    return folder / "train.csv", folder / "test.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", help="folder of the data sets; default: $ANCESTRAL_DATA")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int)
    given = parser.parse_args()
    for path in split(given.name, root_of(given.data), given.folder, given.seed, given.rows):
        print(path)


if __name__ == "__main__":
    main()
