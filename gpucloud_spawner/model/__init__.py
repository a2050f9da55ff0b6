"""Pure data and functions: profiles, options, GPU fit, labels, units. Nothing here does I/O."""
