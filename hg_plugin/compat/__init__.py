"""Work-arounds for the installed stack, one file a package."""
