"""The feature network that comes with the library: learned from the labels of the data set at hand."""

from __future__ import annotations

from ancestral.evaluation.features import Classifier
from ancestral.recipes.registry import Claim, feature_network


@feature_network(
    "label-classifier",
    title="A small convolutional classifier of the data set's own labels",
    tiny=dict(width=4, depth=2),
    claim=Claim(
        "the Frechet distance of its features grows with the strength of noise, blur and missing classes",
        "images/feature_networks",
    ),
)
def label_classifier(width: int = 24, depth: int = 4) -> Classifier:
    """Convolutions, each halving the resolution, learn the labels; the mean over the last map is the feature vector.

    No weights are downloaded, and it suits images that the usual network, Inception-v3 trained on photographs, was not
    made for. Its numbers are comparable between models of one data set, measured with one and the same network.

    Args:
        width: features of the first layer; every further layer has twice as many.
        depth: layers.
    """
    return Classifier(width, depth)
