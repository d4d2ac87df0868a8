"""Decode clips with the weights of a MusicGen decoder: steps, kernels, sampling, noise."""
