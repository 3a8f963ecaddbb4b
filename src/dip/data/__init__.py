"""Images and labels: one module per source, one store, one dataset."""
