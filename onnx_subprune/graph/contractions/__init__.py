"""Layers that contract over channels: how their weight is laid out, their windows, their bias."""
