#!/bin/sh
# Takes out of installed packages what no process of ours reads: their tests, headers, the server and client of Arrow
# Flight with its 40 MB, and the symbol tables of the largest libraries. Build stage only; its binutils stay there.
set -eu
cd /opt/duet/.venv/lib/python3*/site-packages
find . -depth -type d '(' -name tests -o -path '*/pyarrow/include' ')' -exec rm -rf '{}' ';'
rm -f pyarrow/*flight*.so*
strip --strip-unneeded llvmlite/binding/libllvmlite.so pyarrow/*.so* uvloop/*.so sqlalchemy/*/*.so
# The same library lies there under three names, copied because wheels have no links.
for name in pyarrow/libarrow_python.so pyarrow/libarrow_python.so.[0-9][0-9][0-9][0-9]; do
	ln -sf "$(basename pyarrow/libarrow_python.so.*.*.*)" "$name"
done
