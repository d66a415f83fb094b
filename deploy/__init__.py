"""binworks.deploy."""
