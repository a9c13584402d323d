"""The feature network of the published Frechet inception distances, its weights from a file."""

from __future__ import annotations

from ancestral.errors import DataError
from ancestral.evaluation.inception import InceptionV3
from ancestral.recipes.registry import Claim, feature_network


@feature_network(
    "inception-v3",
    title="Rethinking the Inception Architecture for Computer Vision",
    paper="arXiv:1512.00567",
    authors="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna (2015)",
    tiny=dict(weights=""),
    claim=Claim("its features are those that the published distances were measured with, given their weights"),
)
def inception_v3(weights: str = "") -> InceptionV3:
    """Inception-v3 as changed for the Frechet inception distance; 2,048 pooled features, 1,008 classes.

    The weights (``pt_inception-2015-12-05``, as a PyTorch state dict or safetensors) are not shipped; wherever a
    feature network is asked for, the path of their file can be given in place of this name.

    Reference:
        Szegedy, Vanhoucke, Ioffe, Shlens, Wojna. Rethinking the Inception architecture for computer vision. 2015,
        arXiv:1512.00567. Changes for the Frechet inception distance: Heusel et al. 2017, arXiv:1706.08500.

    Args:
        weights: the file.

    Raises:
        DataError: no file, or other weights.
    """
    if not weights:
        raise DataError(
            "the weights of Inception-v3 are not shipped; give the file of pt_inception-2015-12-05 in place of the name"
        )
    return InceptionV3.from_file(weights)
