"""Attention over the compressed cache: the exact models against float64, and the designs against the models."""
