"""Rate and quality of what was decoded."""
