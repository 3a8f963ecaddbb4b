"""What the runs come to: tables beside the paper's, Figure 10, and what a forward pass costs."""
