#!/usr/bin/env python3
"""without_affinity.py PROGRAM [ARGUMENTS]: runs a program that may not say on which cores its threads run."""
import os
import sys

import refused_calls

SCHED_SETAFFINITY = {"x86_64": 203, "aarch64": 122}

refused_calls.refuse(SCHED_SETAFFINITY, refused_calls.EPERM)
os.execvp(sys.argv[1], sys.argv[1:])
