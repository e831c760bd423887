"""The application behind every target: one nginx worker that serves a 1 KiB and a 64 MiB file in the clear."""

from __future__ import annotations

from benchmarks.load.place import (
    BULK_BYTES,
    BULK_PATH,
    LOOPBACK,
    SMALL_BYTES,
    SMALL_PATH,
    Place,
    nginx_user,
)

_CONFIG = """
daemon off; worker_processes 1; pid {folder}/app.pid; error_log {folder}/app.err; {user}
events {{ worker_connections 2048; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  open_file_cache max=16; open_file_cache_valid 600s;
  client_body_temp_path {folder}/app-body;
  server {{ listen {loopback}:{port}; root {folder}/app; }}
}}
"""


def prepare_origin(place: Place) -> list[str]:
    """Write the files to serve and give the command that serves them."""
    root = place.folder / "app"
    root.mkdir()
    (root / SMALL_PATH.lstrip("/")).write_bytes(b"x" * SMALL_BYTES)
    (root / BULK_PATH.lstrip("/")).write_bytes(bytes(BULK_BYTES))
    config = place.folder / "app.conf"
    config.write_text(
        _CONFIG.format(
            folder=place.folder, user=nginx_user(), loopback=LOOPBACK, port=place.app_port
        )
    )
    return ["nginx", "-c", str(config), "-e", f"{place.folder}/app.err"]
