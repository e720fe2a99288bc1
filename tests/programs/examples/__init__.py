"""Complete programs in the style of Pyro's examples, that everything is tried on."""
