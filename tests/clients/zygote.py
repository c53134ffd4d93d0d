"""Imports the SDK once, then forks a fresh process for every client a test asks for.

A client is a process of its own, so that killing it is real; only the import is shared. Every line on
standard input is the path of a Unix socket on which a test waits for its client, and what that is to be: a client of
the robot, one that awaits nothing, a server or a base of Kinova's behind Lanyard, a program for an arm of Kinova's,
one that drives through a tunnel, or what is at a tunnel's end.
"""

import asyncio
import json
import os
import signal
import socket
import sys

import cannelloni_end
import grpcio_server
import kortex
import kortex_base
import pipeline
import socketcand_server
import tunnel
import upstream
import viam_client

ROLES = {
    "cannelloni": cannelloni_end.End,
    "client": viam_client.Client,
    "grpcio": grpcio_server.Server,
    "kortex": kortex.Program,
    "kortex_base": kortex_base.Base,
    "pipeline": pipeline.Pipeline,
    "socketcand": socketcand_server.Server,
    "tunnel": tunnel.Program,
    "upstream": upstream.Upstream,
}


def live(path, role):
    """The whole life of one client."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    connection.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    asyncio.run(viam_client.serve(connection, ROLES[role]()))


def main():
    # Dead clients are reaped by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while line := sys.stdin.readline():
        if os.fork() == 0:
            code = 1
            try:
                path, role = line.split()
                live(path, role)
                code = 0
            finally:
                os._exit(code)


if __name__ == "__main__":
    main()
