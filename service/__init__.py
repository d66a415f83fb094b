"""binworks.service."""
