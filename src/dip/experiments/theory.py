"""Denoising operators of Gaussian data (appendix A)."""
