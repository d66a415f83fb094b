"""What a person sees of a correction: a line of a table and a page of plots, one function a payload."""
