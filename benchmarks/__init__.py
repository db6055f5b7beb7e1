"""Programs that regenerate the figures of the docs; not part of the package."""
