"""First boots and boot facts by real programs: checkers, partitioners, a kernel in QEMU."""
