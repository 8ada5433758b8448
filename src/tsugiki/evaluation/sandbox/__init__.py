"""Generated programs run here and nowhere else: no network, no home, nothing to write to but 16 MB in memory.

    checks.py      run_checks: programs in, verdicts out; the only module that others call
    worker.py      a supervisor process, and the pipe to it
    libraries.py   which shared libraries Python's own modules need
    supervisor.py  prepares a root directory once, then runs one program after another in fresh namespaces
    root.py        that directory: Python's standard library and the libraries it needs, read-only
    monitor.py     one program: its namespaces, its time, its output
    inside.py      the last steps before the program, and the program
    filters.py     the system calls that it may not make
    kernel.py      the calls that Python has no function for

supervisor.py and what it imports run with the standard library alone, without site-packages.

What stands between a program and the machine, each on its own enough for what a model writes by accident:
a user namespace in which it has no capability (where Tsugiki runs as root, the user is `nobody` before);
namespaces for mounts, processes, network, IPC and host name, made for this program and gone with it; a root
without any executable, without /proc, /sys, /etc and homes; no_new_privs; a seccomp filter; limits on time,
memory, processes, files and output. Where the kernel forbids any of it, nothing runs and an error says so.
A program that sets out to be called right can still write "passed" itself: this guards the machine, and not
the score. Memory in the kernel (page tables, sockets) is bounded by these limits only; an exact bound would
need cgroups, and an unprivileged process can't make them.
"""
