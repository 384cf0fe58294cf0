"""Recurrent layers that exporters write as a Loop over the steps: the model is loaded with the operator that they are."""
