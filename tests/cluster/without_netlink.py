#!/usr/bin/env python3
"""without_netlink.py PROGRAM [ARGUMENTS]: runs a program that may not open netlink sockets, as on Android since 11.

The kernel refuses them (seccomp), so nothing in the program or its libraries gets around it.
"""
import ctypes
import os
import platform
import struct
import sys

AF_NETLINK, EACCES = 16, 13
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RETURN, LOAD, JUMP_EQUAL = 0x06, 0x20, 0x15  # linux/bpf_common.h
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER_AT, ARGUMENT_AT = 0, 16  # of struct seccomp_data
SOCKET = {"x86_64": 41, "aarch64": 198}


class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def forbid_netlink():
    rules = [(LOAD, 0, 0, NUMBER_AT), (JUMP_EQUAL, 0, 3, SOCKET[platform.machine()]), (LOAD, 0, 0, ARGUMENT_AT),
             (JUMP_EQUAL, 0, 1, AF_NETLINK), (RETURN, 0, 0, ERRNO | EACCES), (RETURN, 0, 0, ALLOW)]
    program = Program(len(rules), b"".join(struct.pack("HBBI", *rule) for rule in rules))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "prctl")


forbid_netlink()
os.execvp(sys.argv[1], sys.argv[1:])
