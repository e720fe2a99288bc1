"""Placeholder docstring replaced by the first family."""

if __name__ != "pyrovae.guides":
    raise ImportError("import this package as pyrovae.guides: under its short name every class in it would exist twice")
