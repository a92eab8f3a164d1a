"""Bodies without probability: what stands between the equations and the numbers."""
