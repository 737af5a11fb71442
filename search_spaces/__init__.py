"""What a sweep searches: plain data, no Ray, no torch."""
