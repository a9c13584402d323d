"""Sequential tables: rows that belong to keys and follow each other in time, with a context row for each key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ancestral.errors import DataError, UnsupportedError
from ancestral.files import atomic_path
from ancestral.fitting import check_options, held_share, train_config
from ancestral.noise import Noise, item_seeds
from ancestral.tables.event_network import EventNetwork
from ancestral.tables.events import Encoded, EventCodec, typed
from ancestral.version import __version__

if TYPE_CHECKING:
    import pandas

    from ancestral.training import History

FORMAT = "sequential table 1"
TRAINING: dict[str, Any] = {"lr": 3e-3, "batch_size": 128}


class Drawn(NamedTuple):
    """Sampled keys.

    Attributes:
        context: one row per key; None if the model knows no context table.
        rows: their rows, in the order of time.
    """

    context: Any
    rows: Any


class KeySource:
    """Encoded keys as training items: rows padded to the longest key's number.

    Args:
        encoded: keys and rows.
        chosen: numbers of the keys to use.
    """

    def __init__(self, encoded: Encoded, chosen: Tensor) -> None:
        self.encoded, self.chosen = encoded, chosen
        self.starts = encoded.length.cumsum(0) - encoded.length
        self.longest = int(encoded.length.max()) if len(encoded.length) else 0

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, indices: Tensor, epoch: int = 0) -> dict[str, Tensor]:
        """``context [B, Nc]``, ``rows [B, T, Nr]``, ``clock [B, T, 2]`` and ``length [B]``."""
        chosen = self.chosen[torch.as_tensor(indices)]
        length = self.encoded.length[chosen]
        place = torch.arange(self.longest)
        at = (self.starts[chosen][:, None] + place).clamp_max(max(len(self.encoded.rows) - 1, 0))
        inside = (place < length[:, None])[..., None]
        return {
            "context": self.encoded.context[chosen],
            "rows": torch.where(inside, self.encoded.rows[at], 0),
            "clock": torch.where(inside, self.encoded.clock[at], 0.0),
            "length": length,
        }


class SequentialTable:
    """The joint distribution of a key's context row and of its rows in time: how many, when, and what.

    A recurrent network sees the rows so far; whether another row follows, after what gap, and each of its columns are
    drawn one given the others, all with exact probabilities.

    Args:
        key: column of the rows that names what they belong to.
        time: column of the rows with dates, moments or whole numbers.
        context_key: the key's name in the context table, if another.
        width: features of the network.
        depth: its recurrent layers.
    """

    history: History | None = None

    def __init__(self, key: str, time: str, *, context_key: str | None = None, width: int = 96, depth: int = 1) -> None:
        self.codec = EventCodec(key, time, context_key)
        self.width, self.depth = width, depth
        self._network: EventNetwork | None = None

    @property
    def network(self) -> EventNetwork:
        """The distribution; there once the model has seen data."""
        if self._network is None:
            raise UnsupportedError("this model has not seen any data; call fit(rows) first, or load a fitted one")
        return self._network

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.network.parameters())

    def _build(self, seed: int = 0) -> None:
        codec = self.codec
        others = codec.others.space.site_sizes().tolist() if codec.others.schema else []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = EventNetwork(
                codec.context.space.site_sizes().tolist(),
                codec.gap.space.site_sizes().tolist(),
                others,
                self.width,
                self.depth,
            ).eval()

    def fit(self, rows: Any, context: Any = None, *, validation: float = 0.05, seed: int = 0, **options: Any) -> Self:
        """Learn from rows and, if there is one, a context table.

        Args:
            rows: a table with the key, the time and any other columns; in any order.
            context: a table with one row per key; keys without rows have none.
            validation: share of the keys held out for early stopping.
            seed: determines the weights' start, the split and the order of the keys.
            options: of :class:`ancestral.training.TrainConfig`.

        Raises:
            DataError: tables that cannot be used or do not fit together.
        """
        from ancestral.training import train

        check_options(options)
        share = held_share(validation)
        if share is None:
            raise DataError("validation= of a sequential table is the share of the keys to hold out")
        encoded = self.codec.fit(rows, context)
        self._build(seed)
        mixed = torch.from_numpy(np.random.default_rng(seed).permutation(len(encoded.keys)))
        count = int(len(mixed) * share)
        count = count if count >= 8 else 0
        config = train_config({**TRAINING, **options}, seed, validated=count > 0)
        held = KeySource(encoded, mixed[:count]) if count else None
        self.network.train()
        try:
            self.history = train(self.network, KeySource(encoded, mixed[count:]), config, validation=held)
        finally:
            self.network.eval()
        return self

    # -- verbs

    @torch.no_grad()
    def log_prob(
        self, rows: Any, context: Any = None, *, per_part: bool = False, batch_size: int = 256
    ) -> pandas.Series | pandas.DataFrame:
        """Exact log-probability of every key, in nats.

        Args:
            rows, context: as for :meth:`fit`; every key of the context table is scored.
            per_part: tell apart the context, the number of rows (going on and stopping), the gaps and each column.
            batch_size: keys scored together.

        Returns:
            Series ``[keys]``, or DataFrame ``[keys, parts]``, with the keys as index.
        """
        import pandas as pd

        encoded = self.codec.encode(rows, context)
        source = KeySource(encoded, torch.arange(len(encoded.keys)))
        names = ["context", "number", "gaps", *self.codec.others.columns] if self.codec.others.schema else None
        names = names or ["context", "number", "gaps"]
        found = torch.zeros(len(source), len(names), dtype=torch.float64)
        gaps = self.network.gaps
        for index in torch.arange(len(source)).split(batch_size):
            batch = source.batch(index)
            steps = int(batch["length"].max())
            told, terms = self.network.log_prob(
                batch["context"], batch["rows"][:, :steps], batch["clock"][:, :steps], batch["length"]
            )
            sites = terms.double().sum(1)
            found[index, 0] = told.double().sum(1)
            found[index, 1], found[index, 2] = sites[:, 0], sites[:, 1 : 1 + gaps].sum(1)
            for number, where in enumerate(self.codec.others.columns.values() if len(names) > 3 else ()):
                found[index, 3 + number] = sites[:, 1 + gaps + where.start : 1 + gaps + where.stop].sum(1)
        if per_part:
            return pd.DataFrame(found.numpy(), index=encoded.keys, columns=names)
        return pd.Series(found.sum(1).numpy(), index=encoded.keys, name="nats")

    @torch.no_grad()
    def sample(self, n: int = 1, *, seed: int = 0, most: int = 1000) -> Drawn:
        """Draw new keys with their rows.

        Args:
            n: how many keys; they are named 0 to n - 1.
            seed: the i-th key depends on the seed and i only.
            most: rows of a key at most, where stopping comes late.
        """
        import pandas as pd

        if n < 1:
            raise DataError(f"cannot draw {n} keys; give n=1 or more")
        noise = Noise(item_seeds(seed, torch.arange(n)))
        network = self.network
        context = torch.zeros(n, self.codec.context.space.n, dtype=torch.int64)
        for site in range(context.shape[1]):
            context[:, site] = network.context.draw(site, context, None, noise.uniform(1)[:, 0])
        table = self.codec.context.decode(context)
        first = pd.to_numeric(pd.Series(table.cells(self.codec.first_time)), errors="coerce")
        told, state = network.beginning(context)
        ticks = torch.from_numpy(first.fillna(0).to_numpy().astype(np.int64))
        # Without a first time there are no rows; with one, there is at least one.
        some = torch.tensor(first.notna().to_numpy(dtype=bool))
        owner, when, symbols = self._walk(noise, told, state, ticks, some.long(), torch.where(some, most, 0), True)
        rows = self.codec.native(self._rows(owner, when, symbols, pd.Index(range(n))), "rows")
        if not self.codec.has_context:
            return Drawn(None, rows)
        told_frame = typed(table).drop(columns=self.codec.first_time)
        told_frame.insert(0, self.codec.context_key, range(n))
        return Drawn(self.codec.native(told_frame, "context"), rows)

    @torch.no_grad()
    def complete(
        self,
        rows: Any,
        context: Any = None,
        *,
        events: int | None = None,
        at_least: int = 0,
        draws: int = 1,
        seed: int = 0,
        most: int = 1000,
    ) -> Any:
        """Forecast the rows that follow those of every key.

        Args:
            rows, context: as for :meth:`fit`; every key needs a row.
            events: rows to add at most; by default until the model stops.
            at_least: rows to add in any case, by never stopping before.
            draws: futures of each key, told apart by a column ``draw``.
            seed: the j-th draw of the i-th key depends on the seed and ``i * draws + j`` only.
            most: rows to add at most, where stopping comes late.

        Returns:
            The new rows.
        """

        if draws < 1 or at_least < 0:
            raise DataError(f"draws={draws} must be at least 1 and at_least={at_least} not negative")
        encoded = self.codec.encode(rows, context)
        if len(encoded.keys) and int(encoded.length.min()) == 0:
            row = int(encoded.length.argmin())
            raise DataError(f"the key {encoded.keys[row]} has no rows to go on from; leave it out of context=")
        source = KeySource(encoded, torch.arange(len(encoded.keys)))
        batch = source.batch(torch.arange(len(source)))
        _, state = self.network.beginning(batch["context"])
        _, state = self.network.read(batch["rows"], batch["clock"], batch["length"], state)
        ends = torch.from_numpy(encoded.ticks[(source.starts + encoded.length - 1).numpy()])
        repeated = torch.arange(len(source)).repeat_interleave(draws)
        noise = Noise(item_seeds(seed, torch.arange(len(repeated))))
        limit = torch.full((len(repeated),), most if events is None else min(events, most))
        least = torch.full((len(repeated),), at_least).minimum(limit)
        told, state = state[-1][repeated], state[:, repeated].contiguous()
        owner, when, symbols = self._walk(noise, told, state, ends[repeated], least, limit, False)
        frame = self._rows(repeated[owner], when, symbols, encoded.keys)
        if draws > 1:
            frame.insert(1, "draw", (owner % draws).numpy())
        return self.codec.native(frame, "rows")

    def _walk(
        self, noise: Noise, told: Tensor, state: Tensor, ticks: Tensor, least: Tensor, limit: Tensor, fresh: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw rows until every key has stopped.

        Args:
            noise: one stream per key.
            told: float32 ``[B, D]``, what the next row is told.
            state: of the recurrent network, ``[L, B, D]``.
            ticks: int64 ``[B]``, time of the last row, or of the first where there is none yet.
            least, limit: int64 ``[B]``, rows to draw in any case, and at most.
            fresh: whether the next row is the keys' first.

        Returns:
            The rows' keys, times and symbols: ``[R]``, ``[R]``, ``[R, Nr]``, key after key.
        """
        network, gaps = self.network, self.network.gaps
        alive = torch.arange(len(told))
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        step = 0
        while len(alive):
            values = torch.zeros(len(told), len(network.row.sizes), dtype=torch.int64)
            goes_on = network.row.draw(0, values, told, noise.uniform(1)[:, 0])
            goes_on = torch.where(step < least[alive], 1, goes_on)
            keep = (goes_on == 1) & (step < limit[alive])
            alive, told, state, ticks = alive[keep], told[keep], state[:, keep].contiguous(), ticks[keep]
            noise = _subset(noise, keep)
            if not len(alive):
                break
            values = values[keep]
            values[:, 0] = 1
            begin = fresh and step == 0
            for site in range(1 + gaps if begin else 1, values.shape[1]):
                values[:, site] = network.row.draw(site, values, told, noise.uniform(1)[:, 0])
            gap = torch.zeros_like(ticks)
            if not begin:
                gap = torch.tensor(self.codec.gap.decode(values[:, 1 : 1 + gaps]).frame["gap"].to_numpy(np.int64))
            ticks = ticks + gap
            found.append((alive, ticks, values[:, 1:]))
            first = torch.full((len(alive), 1), begin)
            inputs = network.inputs(values[:, None, 1:], self.codec.clock(gap, ticks)[:, None], first)
            out, state = network.units(inputs, state)
            told, step = out[:, -1], step + 1
        if not found:
            return torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, len(network.row.sizes) - 1).long()
        owner, when, symbols = (torch.cat(parts) for parts in zip(*found))
        order = torch.argsort(owner, stable=True)
        return owner[order], when[order], symbols[order]

    def _rows(self, owner: Tensor, when: Tensor, symbols: Tensor, keys: pandas.Index) -> Any:
        """The rows as a frame like the training table's."""
        import pandas as pd

        codec = self.codec
        parts: dict[str, Any] = {codec.key: keys[owner.numpy()].array, codec.time: codec.times(when.numpy()).array}
        frame = pd.DataFrame(parts)
        if codec.others.schema:
            others = codec.others.decode(symbols[:, self.network.gaps :])
            frame = pd.concat([frame, typed(others) if len(owner) else others.frame], axis=1)
        return frame

    # -- saving

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write a folder, for :func:`ancestral.load`; one with other files is replaced only if ``overwrite``.

        Raises:
            DataError: the place cannot be written, or is a folder of other files.
        """
        content = {
            "format": FORMAT,
            "ancestral": __version__,
            "width": self.width,
            "depth": self.depth,
            "codec": self.codec.state(),
        }
        with atomic_path(path, directory=True, overwrite=overwrite, ours="model.json") as folder:
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (folder / "model.json").write_text(text + "\n", encoding="utf-8")
            save_file({k: v.contiguous() for k, v in self.network.state_dict().items()}, folder / "weights.safetensors")

    @classmethod
    def load(cls, path: str | Path) -> SequentialTable:
        """The model that :meth:`save` wrote.

        Raises:
            DataError: not such a folder, or damaged.
        """
        path = Path(path)
        try:
            content = json.loads((path / "model.json").read_text(encoding="utf-8"))
            state = content["codec"]
            model = cls(state["key"], state["time"], width=content["width"], depth=content["depth"])
            model.codec.load_state(state)
            model._build()
            model.network.load_state_dict(load_file(path / "weights.safetensors"))
        except Exception as error:  # unreadable JSON or safetensors raise errors of many kinds
            raise DataError(f"the sequential table in {path} is damaged and cannot be read: {error}") from error
        return model


def is_sequential(path: str | Path) -> bool:
    """Whether a folder holds a saved :class:`SequentialTable`."""
    try:
        return json.loads((Path(path) / "model.json").read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def _subset(noise: Noise, keep: Tensor) -> Noise:
    """The streams of some items, where they stand."""
    out = Noise(noise.seeds[keep])
    out.counter = noise.counter
    return out


__all__ = ["Drawn", "SequentialTable", "is_sequential"]
