"""The command line: ``ancestral fit | sample | score | complete | compress | decompress | report | ...``.

Nothing heavy is imported before a command needs it, so that help comes at once.
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from ancestral.commands.comparing import compare
from ancestral.commands.drawing import complete, sample
from ancestral.commands.models import check, fit, info, quickstart, recipes
from ancestral.commands.oddities import anomalies
from ancestral.commands.quantising import quantise
from ancestral.commands.reporting import report
from ancestral.commands.scoring import compress, decompress, score
from ancestral.commands.serving import serve
from ancestral.commands.studying import study
from ancestral.errors import AncestralError

COMMANDS: dict[str, Callable[..., int | None]] = {
    "fit": fit,
    "sample": sample,
    "score": score,
    "complete": complete,
    "compress": compress,
    "decompress": decompress,
    "anomalies": anomalies,
    "report": report,
    "compare": compare,
    "recipes": recipes,
    "check": check,
    "serve": serve,
    "study": study,
    "quickstart": quickstart,
    "info": info,
    "quantise": quantise,
}

EXAMPLES = {
    "": """\
  ancestral quickstart                                    everything once, in two minutes
  ancestral fit adult.csv --minutes 5                     learn a table
  ancestral sample adult.ancestral -n 100 --given sex=Female --out women.csv
  ancestral COMMAND --help                                all options of one command""",
    "fit": """\
  ancestral fit adult.csv
  ancestral fit photos/ --set size=32 --minutes 60 --checkpoint photos.run
  ancestral fit novel.txt --recipe gpt --set width=256 --set depth=6 --out novel.ancestral""",
    "sample": """\
  ancestral sample digits.ancestral -n 64 --label 3 --guidance 1 --out threes.png
  ancestral sample adult.ancestral -n 1000 --given sex=Female --given age=30..40 --out women.csv
  ancestral sample adult.ancestral -n 9 --given "workclass in Private, Local-gov"
  ancestral sample novel.ancestral -n 3 --given "It was" --temperature 0.8""",
    "score": """\
  ancestral score digits.ancestral test.npz
  ancestral score adult.ancestral new.csv --per-site --out scores.csv""",
    "complete": """\
  ancestral complete adult.ancestral gaps.csv --out filled.csv
  ancestral complete adult.ancestral gaps.csv --point --out estimated.csv
  ancestral complete digits.ancestral test.npz --known top --draws 4 --out completed.png
  ancestral complete novel.ancestral beginning.txt --length 500""",
    "compress": "  ancestral compress digits.ancestral test.npz --out test.anc --verify",
    "decompress": "  ancestral decompress digits.ancestral test.anc --out test.npz",
    "anomalies": "  ancestral anomalies adult.ancestral new.csv -n 50 --out odd.csv",
    "report": """\
  ancestral report adult.ancestral test.csv --training train.csv --out report.html
  ancestral report mnist.ancestral test.npz --training train.npz --guidance 1""",
    "compare": """\
  ancestral compare mnist.npz --recipes llamagen,var,maskgit --minutes 5
  ancestral compare adult.csv --recipes tabular-argn,nade --minutes 1 --out tables.html
  ancestral compare novel.txt --recipes gpt,md4 --minutes 2 --set width=64 --json""",
    "recipes": """\
  ancestral recipes --modality image
  ancestral recipes --search "random order"
  ancestral recipes any-order""",
    "check": """\
  ancestral check any-order
  ancestral check my_recipe.py""",
    "serve": """\
  ancestral serve novel.ancestral --port 8000
  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
      -d '{"model": "novel", "prompt": "It was", "max_tokens": 50}'""",
    "study": "  ancestral study model-collapse-accumulate --set generations=5",
    "quickstart": "  ancestral quickstart --minutes 0.5 --out try",
    "info": "  ancestral info digits.ancestral --json",
    "quantise": "  ancestral quantise novel.ancestral --bits 4 --out small.ancestral",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done; 1: a check failed or the program did; 2: something is wrong with what was given, said in one
    sentence on stderr; 130: interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    trace = bool(os.environ.get("ANCESTRAL_TRACE"))
    if "--trace" in given:
        given.remove("--trace")
        trace = True
    if "torch" not in sys.modules:
        # Threads that wait by spinning make torch ten times slower where another program uses the cores too.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    name = given[0] if given else ""
    known = name if name in COMMANDS else ""
    with warnings.catch_warnings():
        if not trace:
            warnings.showwarning = _warn  # type: ignore[assignment]
        try:
            if given in ([], ["-V"], ["--version"]):
                return _greet() if not given else _version()
            if not known and not name.startswith("-"):
                close = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
                return _say(f"there is no command {name!r}; {hint}", 2)
            if not known:
                tyro.extras.subcommand_cli_from_dict(
                    {n: _summary(f) for n, f in COMMANDS.items()},
                    prog="ancestral",
                    description="Learn the joint distribution of any data, then sample, score, complete and compress.",
                    args=given,
                )
                return 0
            code = tyro.cli(
                COMMANDS[known],
                prog=f"ancestral {known}",
                args=given[1:],
                config=(tyro.conf.FlagCreatePairsOff,),
            )
            sys.stdout.flush()
            return int(code or 0)
        except SystemExit as ended:
            if not ended.code:
                _epilog(known)
            return int(ended.code or 0) if not isinstance(ended.code, str) else 2
        except AncestralError as error:
            if trace:
                raise
            return _say(" ".join(str(error).split()), 2)
        except KeyboardInterrupt:
            return _say("interrupted", 130)
        except BrokenPipeError:
            # The reader of our output left; there is nobody to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except Exception as error:
            if trace:
                raise
            what = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            return _say(f"something unexpected went wrong ({what.rstrip(': ')[:300]}); add --trace to see where", 1)


def _say(sentence: str, code: int) -> int:
    print(f"ancestral: {sentence}", file=sys.stderr)
    return code


def _warn(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
    """Our own warnings as a sentence; those of libraries are for developers."""
    if category is UserWarning and "ancestral" in Path(filename).parts:
        print(f"ancestral: note: {message}", file=sys.stderr)


def _summary(function: Callable[..., Any]) -> Callable[[], None]:
    """A command without arguments under the first line of its help, for the list of commands."""

    def named() -> None:
        return None

    named.__doc__ = (function.__doc__ or "").strip().split("\n")[0]
    return named


def _epilog(known: str) -> None:
    print(f"examples:\n{EXAMPLES[known]}\n")
    if not known:
        print("`--trace` (or ANCESTRAL_TRACE=1) shows where an error comes from; `--version` the version.")


def _greet() -> int:
    return main(["--help"])


def _version() -> int:
    from ancestral.version import __version__

    print(f"ancestral {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
