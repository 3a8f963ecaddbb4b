"""A head that sees patches or the whole image, on a toy manifold (appendix D, Figure 12)."""
