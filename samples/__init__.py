"""binworks.samples."""
