"""DiP: Taming Diffusion Models in Pixel Space."""
