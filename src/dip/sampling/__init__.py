"""Sampling: from weights to an npz in the ADM format."""
