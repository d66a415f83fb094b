"""binworks.api."""
