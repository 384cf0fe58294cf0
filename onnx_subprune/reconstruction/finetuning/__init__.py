"""Fine-tuning of a pruned model: its weights follow gradients towards what the original puts out."""
