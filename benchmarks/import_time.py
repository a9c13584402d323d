"""How long ``import ancestral`` takes beyond ``import torch``: goal at most 1.5 s.

Every run is a process of its own. The public names are touched too, since the package imports its parts when
they are first used; the time of that is reported beside the bare import and is the one that is judged.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from record import record

GOAL = 1.5
SCRIPT = """
import time
began = time.perf_counter()
import torch
middle = time.perf_counter()
import ancestral
bare = time.perf_counter()
ancestral.Model, ancestral.Order, ancestral.fit, ancestral.load, ancestral.recipes()
print(middle - began, bare - middle, time.perf_counter() - middle)
import sys
extras = ("soundfile", "av", "symusic", "music21", "rdkit", "trimesh", "fastapi", "gradio", "sklearn")
print(*(name for name in extras if name in sys.modules))
"""
HELP = [sys.executable, "-m", "ancestral.cli", "--help"]


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    rows: list[list[float]] = []
    pulled: set[str] = set()
    for _ in range(runs + 1):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
        times, extras = done.stdout.splitlines()[:2]
        rows.append([float(t) for t in times.split()])
        pulled |= set(extras.split())
    torch, bare, whole = (statistics.median(column) for column in zip(*rows[1:]))  # the first run warms the disk
    helps = []
    for _ in range(runs):
        timed = "import subprocess, sys, time; t = time.perf_counter(); subprocess.run(sys.argv[1:], check=True, \
stdout=subprocess.DEVNULL); print(time.perf_counter() - t)"
        done = subprocess.run(
            [sys.executable, "-c", timed, *HELP], capture_output=True, text=True, check=True, timeout=60
        )
        helps.append(float(done.stdout))
    ours = {
        "import_ancestral_beyond_torch_s": round(whole, 3),
        "import_ancestral_bare_s": round(bare, 4),
        "ancestral_help_s": round(statistics.median(helps), 3),
    }
    print(f"import torch               {torch:.3f} s")
    print(f"import ancestral, bare     {bare:.4f} s")
    print(f"import ancestral, all used {whole:.3f} s   (goal: at most {GOAL} s)")
    print(f"ancestral --help           {ours['ancestral_help_s']:.3f} s")
    print(f"extras pulled in           {', '.join(sorted(pulled)) or 'none'}")
    reached = whole <= GOAL and not pulled
    path = record(
        "import_time",
        ours,
        {"import_torch_s": round(torch, 3)},
        scale=f"median of {runs} processes after one to warm the disk",
        verdict="reproduced" if reached else "not reproduced",
        published=f"own goal: at most {GOAL} s beyond import torch, no optional package",
        extra={"runs_s": [round(row[2], 3) for row in rows[1:]], "extras_pulled": sorted(pulled)},
    )
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
