"""privnet."""
