"""One photograph learned by heart (Figure 3)."""
