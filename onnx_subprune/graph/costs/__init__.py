"""What a model costs: parameters, multiply-accumulates, time; layer by layer, and as functions of its widths."""
