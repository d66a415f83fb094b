"""binworks.client."""
