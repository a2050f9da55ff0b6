"""gpucloud's hub side."""
