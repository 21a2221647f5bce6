#!/usr/bin/env python3
"""without_netlink.py PROGRAM [ARGUMENTS]: runs a program that may not open netlink sockets, as on Android since 11."""
import os
import sys

import refused_calls

AF_NETLINK = 16
SOCKET = {"x86_64": 41, "aarch64": 198}

refused_calls.refuse(SOCKET, refused_calls.EACCES, first_argument=AF_NETLINK)
os.execvp(sys.argv[1], sys.argv[1:])
