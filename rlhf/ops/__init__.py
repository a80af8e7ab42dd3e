"""Pure tensor functions: the mathematics of training, importable with torch alone."""
