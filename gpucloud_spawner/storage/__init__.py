"""Where users' data live: the home volumes of the applications."""
