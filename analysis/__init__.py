"""What the numbers say: reads sweep folders, never imports torch or Ray."""
