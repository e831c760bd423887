#!/bin/sh
# Make a development CA and a folder of certificates per workload: certs/dev.sh web payments
# Safe to run again: good ones are kept, and renewed in the last third of their life. Keys are never committed.
set -eu
cd "$(dirname "$0")/.."
umask 077
PYTHON=${PYTHON:-.venv/bin/python}
[ -x "$PYTHON" ] || PYTHON=python3
[ $# -gt 0 ] || set -- web payments
exec "$PYTHON" -m ambassador certs dev --out certs "$@"
