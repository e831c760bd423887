"""Ambassador: a sidecar proxy that gives an application mutual TLS, in and out, without a change to it.

Map of the floors; imports go down only (`tests/test_architecture.py`):

8 `app`, `cli`                     composition root, commands
7 `control`                        reload, drain, admin
6 `proxy`, `roles`, `bench`        the request path, optional roles, the load generator
5 `upstream`                       services, pools
4 `discovery`, `http`              where endpoints come from, HTTP/1.1 over transports
3 `config`                         the file
2 `net`, `identity`, `telemetry`   sockets, certificates and TLS, logs and metrics
1 `policy`, `wire`                 pure: decisions, formats
0 `core`                           the shared words
"""

__version__ = "1.0.0"
