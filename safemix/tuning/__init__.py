"""Search for the mixing ratio: trials side by side, what they say, and the ratio to use."""
