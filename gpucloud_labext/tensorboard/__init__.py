"""One TensorBoard per log directory, started, reached, listed and stopped for the user.

In the Jupyter server:

``logdirs``    which directories may be shown: the home, the user's buckets
``manager``    which TensorBoards there are: reuse, limits, the idle ones, the end of all
``instance``   one of them: its process, what it says, what it uses
``proxy``      the only way to it: logged in, through the server, to a socket that only it may open

In a process of its own for each:

``serve``      TensorBoard itself, listening on a Unix socket
``listen``     its HTTP server
``pages``      its pages, so that they work below a prefix and with `_xsrf`
``network``    its threads' own network, so that nobody else reaches the ports it opens inside
``mirror``     for `s3://`: keeps a local copy of the event files, downloading only what is new
"""
