"""Weights and configurations that do not belong together are refused in one sentence, whatever is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
import test_aim
import test_arpg
import test_larp
import test_llamagen
import test_maskgit_vq
import test_rar
import test_titok
import torch

import ancestral
from ancestral.errors import DataError

CASES: dict[str, Any] = {
    "aim": lambda: (test_aim.weights(next(iter(test_aim.CASES))), test_aim.CONFIG),
    "arpg": lambda: (test_arpg.weights(), test_arpg.CONFIG),
    "larp_tokenizer": lambda: (test_larp.weights(False), test_larp.CONFIG),
    "llamagen": lambda: (test_llamagen.gpt_state(), test_llamagen.CONFIG),
    "maskgit_vq": lambda: (test_maskgit_vq.weights(), test_maskgit_vq.CONFIG),
    "rar": lambda: (test_rar.weights(), test_rar.CONFIG),
    "titok": lambda: (test_titok.weights("second stage"), test_titok.config("second stage")),
}
UNREAD = ("prior_model.",)
"""Weights that only their training needs."""
OPTIONAL = ("lm_head.weight", "decoder_patch_query_token_type_embed")
"""Weights that some of the authors' checkpoints lack: the one of the embedding, tied; an option of the network."""


@pytest.mark.parametrize("system", CASES)
def test_every_weight_is_missed_and_checked(system: str) -> None:
    state, config = CASES[system]()
    for name in state:
        if name.startswith(UNREAD):
            continue
        if name not in OPTIONAL:
            with pytest.raises(DataError, match="weights"):
                ancestral.load_published(system, {k: v for k, v in state.items() if k != name}, config)
        larger = torch.zeros([d + 1 for d in state[name].shape] or [3])
        with pytest.raises(DataError, match="weights"):
            ancestral.load_published(system, {**state, name: larger}, config)
    with pytest.raises(DataError, match=r"1 without a place \((backbone\.)?odd\.weight\)"):
        ancestral.load_published(system, {**state, "odd.weight": torch.zeros(2)}, config)


@pytest.mark.parametrize("system", CASES)
def test_a_configuration_of_anything_is_refused_or_fits(system: str) -> None:
    state, config = CASES[system]()
    with pytest.raises(DataError, match="give the arguments"):
        ancestral.load_published(system, state, None)  # type: ignore[arg-type]
    with pytest.raises(DataError):
        ancestral.load_published(system, {"conv1.weight": torch.zeros(3, 3)}, config)
    for name in config:
        for odd in ("x", None, -1, 0, [3]):
            try:
                ancestral.load_published(system, state, {**config, name: odd})
            except DataError as error:
                assert "\n" not in str(error)


def test_what_the_configuration_lacks_is_named() -> None:
    state, config = CASES["llamagen"]()
    with pytest.raises(DataError, match="lacks dim, an argument"):
        ancestral.load_published("llamagen", state, {k: v for k, v in config.items() if k != "dim"})
