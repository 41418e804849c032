#!/usr/bin/env python3
"""Records what a client and a server say to each other.

    record.py LISTEN_PORT SERVER_HOST:PORT OUT.bin [--connections N]

A plain TCP relay. Every chunk that it passes on is also appended to OUT.bin as one byte of
direction (`C` from the client, `S` from the server), the length as four bytes, little-endian,
and the bytes. Neighbouring chunks of one direction become one record. It ends after N
connections (1 unless told otherwise); several are written one after the other, each begun by a
record `N` of length zero.
"""

import select
import socket
import struct
import sys


def relay(client, server, out):
    out.append([b"N", b""])
    sides = {client: (server, b"C"), server: (client, b"S")}
    while True:
        for side in select.select(list(sides), [], [])[0]:
            other, mark = sides[side]
            chunk = side.recv(65536)
            if not chunk:
                return
            if out[-1][0] == mark:
                out[-1][1] += chunk
            else:
                out.append([mark, chunk])
            other.sendall(chunk)


def main():
    port, address, path = sys.argv[1:4]
    rest = sys.argv[4:]
    count = int(rest[1]) if rest[:1] == ["--connections"] else 1
    host, server_port = address.rsplit(":", 1)
    listener = socket.create_server(("127.0.0.1", int(port)))
    print("ready", flush=True)
    out = []
    for _ in range(count):
        client, _ = listener.accept()
        server = socket.create_connection((host, int(server_port)))
        relay(client, server, out)
        client.close()
        server.close()
    with open(path, "wb") as file:
        for mark, data in out:
            file.write(mark + struct.pack("<I", len(data)) + data)


if __name__ == "__main__":
    main()
