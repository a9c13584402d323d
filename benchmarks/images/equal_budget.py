"""Every recipe of the catalogue that takes images, trained for an equal budget of processor time, on MNIST or CIFAR-10.

python benchmarks/images/equal_budget.py --folder DATA --data mnist --minutes 3

Recipes are taken from the catalogue. Learned tokenizers are trained once per data set and kind, and shared by the
recipes whose own is of that kind; a recipe on pixels draws the codes of the shared vector quantiser instead, unless it
is among ``--pixels`` (`fractalgen` keeps its patches of them). Budgets are counted in processor time of one thread, so
that other programs on the machine change nothing. Every recipe's row is kept in the working folder as soon as it is
there, and a later call goes on from those.

A recipe with very many sites per image would see one batch of its own size in the budget, and draw for hours: it is
tried at all if ``--samples-of wavelet-ar=60`` says how many images to draw instead, and ``--batch-of wavelet-ar=4`` how
many to learn from at a time. Its row has the figures of as many real images beside its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from clock import processor_clock  # noqa: E402
from image_data import TITLES, load  # noqa: E402
from judge import Judge, judge  # noqa: E402

from ancestral.data import Images  # noqa: E402
from ancestral.errors import AncestralError, DataError  # noqa: E402
from ancestral.evaluation.distances import frechet_distance  # noqa: E402
from ancestral.evaluation.features import FeatureNetwork, class_accuracy, feature_network  # noqa: E402
from ancestral.evaluation.images import Figure, draw, figures, reconstruction  # noqa: E402
from ancestral.evaluation.pictures import sheet  # noqa: E402
from ancestral.files import write_json  # noqa: E402
from ancestral.recipes.registry import Recipe, catalogue  # noqa: E402
from ancestral.tokenizers import Pixels, Tokenizer  # noqa: E402
from ancestral.tokenizers.learned import VQ, Autoencoder, Convolutional  # noqa: E402
from record import record  # noqa: E402

GOAL, ENOUGH = 0.9, 5
"""Class accuracy that samples of so many recipes should have."""
PAGES = HERE.parent.parent / "docs" / "pages"
SIDE = 32
"""Pixels along each axis of the images."""


class Bench:
    """The data, what is shared, and the folder where all of it is kept."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.train, self.test = load(given.data, given.folder)
        self.work: Path = given.work / given.data
        (self.work / "grids").mkdir(parents=True, exist_ok=True)
        self.reference = f"{TITLES[given.data].split(' (')[0]} test"
        self.network = self._network()
        self.judge: Judge = judge(self.train, self.work)

    def _network(self) -> FeatureNetwork:
        kept = self.work / "features"
        if kept.is_dir():
            return FeatureNetwork.load(kept)
        passes = max(1.0, 60_000 / len(self.train))
        network = feature_network(
            "label-classifier", self.train, source=f"{TITLES[self.given.data]}, training part", epochs=passes
        )
        network.save(kept)
        return network

    def tokenizer(self, own: Tokenizer) -> Tokenizer | None:
        """The shared tokenizer for a recipe whose own is this one; None where it has to use its own."""
        if not own.learned:
            return None
        state = own.state()
        about = {k: state[k] for k in ("quantiser", "backbone", "losses")}
        about |= {k: state[k] for k in ("semantic",) if state[k]}
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
        kept = self.work / "tokenizers" / f"{about['quantiser']['kind'].lower()}-{name}"
        if not kept.is_dir():
            print(f"training the tokenizer {kept.name}", flush=True)
            with processor_clock():
                own.fit(self.train, minutes=self.given.tokenizer_minutes, quiet=True, validation=0)  # type: ignore[call-arg]
            own.save(kept)
        return self._remembering(Tokenizer.load(kept), kept.with_suffix(".npy"))

    def _remembering(self, tokenizer: Tokenizer, place: Path) -> Tokenizer:
        """The tokenizer with the training images' codes kept in a file: encoding them anew for every recipe takes
        longer than it should beside a short training."""
        encode = tokenizer.encode

        def remembered(dataset: Any) -> torch.Tensor:
            if dataset is not self.train:
                return encode(dataset)
            if not place.is_file():
                np.save(place, encode(dataset).numpy())
            return torch.from_numpy(np.load(place))

        tokenizer.encode = remembered  # type: ignore[method-assign]
        return tokenizer

    def row(self, recipe: Recipe, name: str | None = None, **changes: Any) -> dict[str, Any]:
        """Train one recipe, draw from it and measure.

        Args:
            recipe: of the catalogue.
            name: under which samples and model are kept; by default the id.
            changes: arguments that differ from those at the common size.
        """
        given = self.given
        samples, batch = given.samples_of.get(recipe.id, given.samples), given.batch_of.get(recipe.id, given.batch)
        model = recipe(**sizes(recipe, given) | changes)
        own = model.tokenizer
        if type(own) is Pixels and recipe.id not in given.pixels:
            own = codes(given)
        elif not own.learned and recipe.id not in given.samples_of and own.fit(self.train).space.n > given.longest:
            raise DataError(
                f"{own.space.n:,} sites per image are more than --longest {given.longest:,}: it would see few images "
                "in the budget, and draw for hours; say with --samples-of how many it should draw"
            )
        shared = self.tokenizer(own)
        options: dict[str, Any] = {"validation": 0, "quiet": True, "minutes": given.minutes, "seed": given.seed}
        if batch:
            options["batch_size"] = batch
        busy = time.process_time()
        with processor_clock():
            model.fit(self.train, tokenizer=shared, **options)
        busy = time.process_time() - busy
        history = model.history
        assert history is not None
        row: dict[str, Any] = {
            "recipe": recipe.id,
            "fingerprint": recipe.fingerprint,
            "tokens": describe(model.tokenizer),
            "sites": model.space.n,
            "parameters": model.parameters,
            "steps": history.steps,
            "batch_size": batch or model.training.get("batch_size"),
            "processor_minutes": busy / 60,
            "samples": samples,
            "draws": {},
        }
        if samples < given.samples:
            row["floor_of_as_many_real_images"] = self.real(samples)
        labels = np.arange(samples) % len(self.train.classes)
        for guidance in given.guidance:
            try:
                drawn = draw(model, samples, labels, seed=given.seed, guidance=guidance)
            except AncestralError as error:  # a decoder of its own kind may take no guidance
                if not row["draws"]:
                    raise
                row["refused"] = {f"{guidance:g}": str(error)}
                continue
            found = figures(self.network, self.test, drawn.images, reference=self.reference, seed=given.seed)
            accuracy = class_accuracy(self.judge, drawn.images, labels)
            row["draws"][f"{guidance:g}"] = {
                "class_accuracy": accuracy,
                "frechet_spread": self.spread(drawn.images),
                **{key: figure.value for key, figure in found.items()},
                "forward_passes_per_image": drawn.passes,
                "processor_seconds_per_image": drawn.processor,
                "seconds_per_image": drawn.seconds,
            }
            grid(drawn.images, self.work / "grids" / f"{name or recipe.id}-guidance{guidance:g}.png")
            print(
                f"{name or recipe.id} guidance {guidance:g}: class accuracy {accuracy:.3f}, {found['frechet']}",
                flush=True,
            )
        if model.tokenizer.learned:
            part = self.test.take(slice(0, given.samples))
            row["rfid"] = reconstruction(self.network, model, part, reference=self.reference).value
        model.save(self.work / "models" / (name or recipe.id), overwrite=True)
        return row

    def spread(self, made: Images, draws: int = 12) -> float:
        """Standard deviation of the Frechet distance over random choices, with replacement, of the drawn images."""
        real, features = self.network.reference(self.test), self.network.measure(made)[0]
        chance = np.random.default_rng(0)
        chosen = (chance.integers(0, len(features), len(features)) for _ in range(draws))
        return float(np.std([frechet_distance(real, features[c]) for c in chosen], ddof=1))

    def real(self, samples: int) -> dict[str, float]:
        """The same figures of so many real training images in place of drawn ones."""
        real = self.train.take(slice(0, samples))
        found: dict[str, Figure] = figures(self.network, self.test, real, reference=self.reference, seed=0)
        return {key: figure.value for key, figure in found.items()}

    def floor(self) -> dict[str, Any]:
        """Figures of real images in place of drawn ones, and the accuracies of both networks on test images."""
        return {
            **self.real(self.given.samples),
            "judge_accuracy_on_test": class_accuracy(self.judge, self.test),
            "feature_network_accuracy_on_test": class_accuracy(self.network, self.test),
        }


def takes_images(recipe: Recipe) -> bool:
    """Whether a recipe is of images, or of anything and so of images as well."""
    return recipe.modality in ("image", "any")


def counts(text: str) -> dict[str, int]:
    """``id=number,...`` as a mapping."""
    return {name: int(number) for name, number in (part.split("=") for part in text.split(",") if part)}


def sizes(recipe: Recipe, given: argparse.Namespace) -> dict[str, Any]:
    """Arguments that bring a recipe to the common size: by their names, whatever the recipe."""
    config = recipe.config()
    out: dict[str, Any] = {"data": "images"} if "data" in config else {}
    for name, most in (("width", given.width), ("depth", given.depth), ("codes", given.codes)):
        if isinstance(config.get(name), int):
            out[name] = min(config[name], most)
    if "perceptual" in config:
        # The tokenizer's training goes to the autoencoder alone.
        out["perceptual"] = 0.0
    if "channels" in config and "multipliers" in config:
        out |= {"channels": given.channels, "multipliers": (1, 2), "patch": given.patch}
    return out


def codes(given: argparse.Namespace) -> Autoencoder:
    """The vector quantiser that recipes on pixels share with those on its codes."""
    return Autoencoder(
        VQ(given.codes, width=8), Convolutional(given.channels, (1, 2), patch=given.patch), perceptual=0.0
    )


def describe(tokenizer: Tokenizer) -> str:
    """Kind of tokens in a word or two."""
    if isinstance(tokenizer, Autoencoder):
        return f"{type(tokenizer.quantiser).__name__} codes" if tokenizer.space.discrete else "latents"
    return type(tokenizer).__name__.lower()


def grid(images: Images, path: Path) -> None:
    """Ten images of each class, a row per class."""
    count = len(images.classes)
    order = np.concatenate([np.arange(c, len(images), count)[:10] for c in range(count)])
    sheet(images.take(order), 10, images.pixels.shape[1]).save(path)


def picture(bench: Bench, chosen: list[tuple[str, str]], columns: int = 5) -> None:
    """The first images of every class, a row per class, of several recipes beside each other: for the documentation.

    Args:
        chosen: ids and guidance scales.
        columns: images of each class.
    """
    from PIL import Image

    sheets = [Image.open(bench.work / "grids" / f"{name}-guidance{scale}.png") for name, scale in chosen]
    gap = 2
    width = columns * (SIDE + gap)
    page = Image.new("RGB", (len(sheets) * (width + 4 * gap) - 4 * gap, sheets[0].height), "white")
    for i, one in enumerate(sheets):
        page.paste(one.crop((gap, 0, gap + width, one.height)), (i * (width + 4 * gap), 0))
    colours = 256 if bench.train.pixels.shape[-1] > 1 else 16
    page.quantize(colours).save(PAGES / f"samples_{bench.given.data}.png", optimize=True)


def whole(given: argparse.Namespace) -> str:
    """The command that makes the whole table in one go, however many calls it took."""
    plain = "folder data minutes tokenizer_minutes samples width depth codes channels patch seed"
    told = {name.replace("_", "-"): getattr(given, name) for name in plain.split()}
    told |= {"pixels": ",".join(given.pixels), "guidance": ",".join(f"{g:g}" for g in given.guidance)}
    told |= {
        name: ",".join(f"{k}={v}" for k, v in of.items())
        for name, of in (("samples-of", given.samples_of), ("batch-of", given.batch_of))
    }
    return " ".join(["python benchmarks/images/equal_budget.py", *(f"--{k} {v}" for k, v in told.items() if v != "")])


def write(bench: Bench, rows: dict[str, dict[str, Any]], failed: dict[str, str]) -> None:
    """The table so far."""
    given = bench.given
    best = {r: max(d["class_accuracy"] for d in row["draws"].values()) for r, row in rows.items()}
    reached = sorted((r for r, a in best.items() if a >= GOAL), key=lambda r: -best[r])
    goal = given.data == "mnist"
    # The clearest five, each at its clearest scale.
    ranked = [
        ((-draw["class_accuracy"], draw["frechet"]), name, scale)
        for name, row in rows.items()
        for scale, draw in row["draws"].items()
    ]
    shown: dict[str, str] = {}
    for _, name, scale in sorted(ranked):
        shown.setdefault(name, scale)
    pictured = list(shown.items())[:5]
    picture(bench, pictured, 5 if goal else 4)
    path = record(
        f"equal_budget_{given.data}",
        {"rows": rows, "floor_of_real_images": bench.floor(), "recipes_with_class_accuracy_of_0.9": reached},
        scale=f"{TITLES[given.data]}; {given.minutes:g} minutes of one core per recipe, after "
        f"{given.tokenizer_minutes:g} for each shared tokenizer; width at most {given.width}, depth {given.depth}, "
        f"{given.codes} codes of {2 * given.patch} x {2 * given.patch} pixels; {given.samples:,} class-conditional "
        f"samples against {len(bench.test):,} test images",
        verdict=("reproduced" if len(reached) >= ENOUGH else "not reproduced") if goal else "not tested",
        command=whole(given),
        published={"goal": f"class accuracy of at least {GOAL} for at least {ENOUGH} recipes"} if goal else None,
        extra={
            "feature_network": bench.network.title,
            "reference": f"{bench.reference}, {len(bench.test):,} images",
            "notes": "Frechet distances of equal counts compare; they are too large on average for few images, so that "
            "a row with fewer samples than the others has the figures of as many real images beside its own. The judge "
            "of class accuracy is another network than the one whose features are compared. Test images were used for "
            "these figures only, but the guidance scale with the best class accuracy counts for the goal.",
            "pictured": [f"{name} (guidance {scale})" for name, scale in pictured],
            "failed": failed,
        },
    )
    print(f"wrote {path}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder with the data sets mnist and cifar10_png")
    parser.add_argument("--data", choices=sorted(TITLES), default="mnist")
    parser.add_argument("--minutes", type=float, default=3.0, help="of processor time for every recipe")
    parser.add_argument("--tokenizer-minutes", type=float, default=3.0)
    parser.add_argument(
        "--only", default="", help="ids, separated by commas; by default every recipe that takes images"
    )
    parser.add_argument("--pixels", default="", help="ids that stay on pixels (drawing 32 x 32 of them takes long)")
    parser.add_argument("--longest", type=int, default=2048, help="sites per image of what is tried at all")
    parser.add_argument("--batch", type=int, default=0, help="images of a step; by default each recipe's own")
    parser.add_argument("--batch-of", default="", help="the same for single recipes: id=images,...")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--samples-of", default="", help="fewer for single recipes, however many sites: id=samples,...")
    parser.add_argument("--guidance", default="0,1.5")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--patch", type=int, default=4, help="a code stands for twice as many pixels along each axis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=HERE.parent.parent / "build" / "equal_budget")
    parser.add_argument("--again", action="store_true", help="train recipes anew whose rows are there already")
    parser.add_argument("--list", action="store_true", help="print the ids that have no row yet, and do nothing")
    parser.add_argument("--write", action="store_true", help="only write the table of all rows that are there")
    parser.add_argument("--rows-only", action="store_true", help="leave writing the table to a later call")
    given = parser.parse_args()
    given.guidance = [float(g) for g in given.guidance.split(",")]
    given.pixels = given.pixels.split(",")
    given.samples_of, given.batch_of = counts(given.samples_of), counts(given.batch_of)
    chosen = given.only.split(",") if given.only else [r.id for r in catalogue().values() if takes_images(r)]
    folder = given.work / given.data / "rows"
    if given.list:
        print("\n".join(name for name in chosen if not (folder / f"{name}.json").is_file()))
        return
    bench = Bench(given)
    for name in () if given.write else chosen:
        place = folder / f"{name}.json"
        if place.is_file() and not given.again:
            continue
        print(f"{name} ...", flush=True)
        try:
            write_json(place, bench.row(catalogue()[name]))
        except AncestralError as error:
            write_json(place, {"failed": str(error)})
            print(f"{name} failed: {error}", flush=True)
    if given.rows_only:
        return
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    failed = {name: row["failed"] for name, row in found.items() if "failed" in row}
    write(bench, {name: row for name, row in found.items() if name not in failed}, failed)


if __name__ == "__main__":
    main()
