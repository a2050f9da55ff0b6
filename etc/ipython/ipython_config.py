# `%gpucloud` in every notebook, without `%load_ext gpucloud_labext`. Not in `extensions`: a list of
# that name in a user's own ipython_config.py would replace it.
c = get_config()

c.InteractiveShellApp.extra_extensions.append("gpucloud_labext")
