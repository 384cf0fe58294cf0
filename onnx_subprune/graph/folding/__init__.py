"""The same function in fewer nodes: what scales or shifts channels goes into convolutions, and activations that are spelled out are one operator."""
