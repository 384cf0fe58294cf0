"""Sums over data that selection and refits need."""
