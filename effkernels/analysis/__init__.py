"""What a model costs without running it: MACs, bytes, memory, budgets, and the paper's published numbers."""
