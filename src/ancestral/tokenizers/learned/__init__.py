"""Learned tokenizers of images: encoder, quantiser and decoder, trained like a model and reusable alone."""

from ancestral.tokenizers.learned.autoencoder import Autoencoder
from ancestral.tokenizers.learned.clip import Clip
from ancestral.tokenizers.learned.composite import MultiScaleVQ, Product, ResidualVQ
from ancestral.tokenizers.learned.convolution import Convolutional
from ancestral.tokenizers.learned.parts import Backbone, Pyramid, Quantiser
from ancestral.tokenizers.learned.pyramid import LatentPyramid
from ancestral.tokenizers.learned.quantisers import FSQ, KL, LFQ, VQ, Bins
from ancestral.tokenizers.learned.query import Query
from ancestral.tokenizers.learned.titok import TiTok

__all__ = [
    "FSQ",
    "KL",
    "LFQ",
    "VQ",
    "Autoencoder",
    "Backbone",
    "Bins",
    "Clip",
    "Convolutional",
    "LatentPyramid",
    "MultiScaleVQ",
    "Product",
    "Pyramid",
    "Quantiser",
    "Query",
    "ResidualVQ",
    "TiTok",
]
