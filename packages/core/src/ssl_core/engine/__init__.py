"""The training engine: one loop, exact resume, one device or many."""
