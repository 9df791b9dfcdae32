"""The report of a comparison: one page for a browser and for paper, which asks for nothing outside itself."""
