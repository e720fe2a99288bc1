"""Placeholder docstring replaced by the first family."""

if __name__ != "pyrovae.models":
    raise ImportError("import this package as pyrovae.models: under its short name every class in it would exist twice")
