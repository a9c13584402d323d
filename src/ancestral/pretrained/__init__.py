"""Published language models: their files to our own networks."""

from ancestral.pretrained.load import is_language_model, load_language_model

__all__ = ["is_language_model", "load_language_model"]
