"""From rows to tensors: sampler, joined dataset, encoder, collate function."""
