"""Event corrections, one file each: the payload's schema, the loader that checks it, the kernel."""
