"""Real nodes, a real model and faults: what clients notice, in figures. `./dev chaos`; docs/reliability.md tells.

schedule: which faults, when (pure, by a seed). faults: does them. clients: streams answers all the time and compares
them with the undisturbed text. run: all of that together. takeover, soak: the two other measurements. Nothing here
knows how shoal works inside but its HTTP API, its command line and /proc.
"""
