"""binworks.corrections."""
