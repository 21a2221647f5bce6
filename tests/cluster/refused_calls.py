"""System calls that the kernel refuses to this process and all that it becomes (seccomp): nothing gets around it."""
import ctypes
import platform
import struct

EPERM, EACCES = 1, 13
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RETURN, LOAD, JUMP_EQUAL = 0x06, 0x20, 0x15  # linux/bpf_common.h
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER_AT, ARGUMENT_AT = 0, 16  # of struct seccomp_data


class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def refuse(numbers, error, first_argument=None):
    """From now on the call (its number by machine) fails with `error`, with this first argument or with any."""
    rules = [(LOAD, 0, 0, NUMBER_AT), (JUMP_EQUAL, 0, 1 if first_argument is None else 3, numbers[platform.machine()])]
    if first_argument is not None:
        rules += [(LOAD, 0, 0, ARGUMENT_AT), (JUMP_EQUAL, 0, 1, first_argument)]
    rules += [(RETURN, 0, 0, ERRNO | error), (RETURN, 0, 0, ALLOW)]
    program = Program(len(rules), b"".join(struct.pack("HBBI", *rule) for rule in rules))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "prctl")
