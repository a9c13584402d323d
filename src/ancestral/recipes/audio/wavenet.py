"""WaveNet: stacked dilated causal convolutions."""

from __future__ import annotations

from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import GatedConvolution
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Bytes, MuLaw, Symbols, Tokenizer


@recipe(
    "wavenet",
    title="WaveNet: A Generative Model for Raw Audio",
    paper="arXiv:1609.03499",
    authors="van den Oord, Dieleman, Zen, Simonyan, Vinyals, Graves, Kalchbrenner, Senior, Kavukcuoglu (2016)",
    differs_from="gpt",
    tiny=dict(width=16, cycles=1, layers=2, data="sequences", length=3),
    toy="tokens",
    claim=Claim("dilated convolutions score better than a recurrent network of equal size, and sample from queues"),
)
def wavenet(
    width: int = 64,
    cycles: int = 3,
    layers: int = 8,
    kernel: int = 2,
    data: str = "audio",
    length: int | None = 1024,
    streaming: bool = True,
    levels: int = 256,
) -> Model:
    """The next sample from a field of past ones that doubles with every layer.

    A layer of dilation d combines its inputs d steps apart, ``z = tanh(W_f * x + V_f h) sigmoid(W_g * x + V_g h)``,
    adds a 1 x 1 convolution of z to its input and sends another to the output, where the sum over all layers passes
    two rectified layers and a softmax. Dilations run 1, 2, 4 ... and start over. What the model is told (a class, such
    as the speaker) enters every gate as h. Sampling keeps each layer's last inputs in a queue.

    Sound has a symbol per sample by mu-law companding; what that leaves open counts as uniform, so that scores and
    compressed files are those of the samples. Local conditions, upsampled from linguistic features, enter as the
    space's per-site condition.

    Reference:
        van den Oord et al. WaveNet: a generative model for raw audio. 2016, arXiv:1609.03499.

    Args:
        width: channels.
        cycles: times that the dilations are gone through.
        layers: dilations per cycle; ``cycles * (2^layers - 1) * (kernel - 1) + 1`` samples are seen.
        kernel: taps of a convolution.
        data: modality: audio, text, bytes, or sequences (always with a stop symbol).
        length: samples in a window, or at most in an item.
        streaming: audio, text and bytes as a stream of any length.
        levels: of the mu-law.
    """
    tokenizers: dict[str, Tokenizer] = {
        "audio": MuLaw(levels, length, streaming),
        "text": Bytes(length, streaming),
        "bytes": Bytes(length, streaming),
        "sequences": Symbols(length),
    }
    if data not in tokenizers:
        raise ValueError(f"data={data!r} is unknown; choose {', '.join(tokenizers)}")
    return Model(
        tokenizers[data],
        "raster",
        GatedConvolution(width, cycles, layers, kernel, targets=False),
        Categorical(per_site=False),
        training=dict(lr=2e-3, batch_size=16),
    )
