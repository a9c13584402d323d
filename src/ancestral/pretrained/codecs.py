"""Tokenizers rebuilt from the pieces, merges and scores that a GGUF file holds."""

from __future__ import annotations

from collections.abc import Sequence

from ancestral.errors import UnsupportedError

# How text is cut into words before codes are merged, by the name that llama.cpp gives to it. The expressions are
# part of the published tokenizers.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_SPLITS = {"llama-bpe": _LLAMA3, "llama3": _LLAMA3, "qwen2": _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")}
_DIGITS = ("smollm",)
_PLAIN = ("default", "gpt-2")


def byte_level_codec(
    pieces: Sequence[str],
    merges: Sequence[tuple[str, ...]],
    cut: str,
    special: Sequence[int] = (),
    whole: Sequence[int] = (),
) -> str:
    """JSON of a byte-level BPE tokenizer (GPT-2, Llama 3, Qwen 2, SmolLM).

    Args:
        pieces: spelling of every symbol.
        merges: pairs of pieces, the first to be merged first.
        cut: llama.cpp's name for the way text is cut into words.
        special: symbols with a meaning of their own.
        whole: symbols that are always read as one.

    Raises:
        UnsupportedError: another way of cutting.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    codec = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [(m[0], m[1]) for m in merges]))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut not in _SPLITS)
    if cut in _SPLITS:
        first: object = pre_tokenizers.Split(Regex(_SPLITS[cut]), "isolated")
    elif cut in _DIGITS:
        first = pre_tokenizers.Digits(individual_digits=True)
    elif cut in _PLAIN:
        first = None
    else:
        known = ", ".join((*_PLAIN, *_DIGITS, *_SPLITS))
        raise UnsupportedError(f"the tokenizer cuts words in the way {cut!r}; known are {known}")
    codec.pre_tokenizer = level if first is None else pre_tokenizers.Sequence([first, level])  # type: ignore[list-item]
    codec.decoder = decoders.ByteLevel()
    return _with_added(codec, pieces, special, whole)


def sentence_piece_codec(
    pieces: Sequence[str],
    scores: Sequence[float],
    lead: bool,
    special: Sequence[int] = (),
    whole: Sequence[int] = (),
) -> str:
    """JSON of a SentencePiece BPE tokenizer with byte fallback (Llama 1 and 2).

    SentencePiece merges the neighbours whose union has the highest score; the merges follow from the scores.

    Args:
        pieces: spelling of every symbol, U+2581 for a space.
        scores: of every symbol.
        lead: a space is put before the text.
        special, whole: as for :func:`byte_level_codec`.
    """
    from tokenizers import Tokenizer, models, normalizers

    table = {p: i for i, p in enumerate(pieces)}
    apart = {*special, *whole}
    merges = []
    for i, piece in enumerate(pieces):
        if i in apart:
            continue
        for k in range(1, len(piece)):
            left, right = piece[:k], piece[k:]
            if left in table and right in table:
                merges.append((-scores[i], table[left], table[right], left, right))
    merges.sort()
    unknown = next((p for p in ("<unk>",) if p in table), None)
    codec = Tokenizer(
        models.BPE(table, [(m[3], m[4]) for m in merges], unk_token=unknown, byte_fallback=True, fuse_unk=True)
    )
    replace = normalizers.Replace(" ", "\u2581")
    codec.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace]) if lead else replace
    return _with_added(codec, pieces, special, whole)


def _with_added(codec: object, pieces: Sequence[str], special: Sequence[int], whole: Sequence[int]) -> str:
    from tokenizers import AddedToken, Tokenizer

    assert isinstance(codec, Tokenizer)
    codec.add_special_tokens([AddedToken(pieces[i], special=True, normalized=False) for i in special])
    codec.add_tokens([AddedToken(pieces[i], special=False, normalized=False) for i in whole])
    return codec.to_str()
