"""Calibration samples from whatever the user has."""
