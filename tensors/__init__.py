"""binworks.tensors."""
