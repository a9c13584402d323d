"""Decoders: how values are drawn, written once on the networks' protocol."""
