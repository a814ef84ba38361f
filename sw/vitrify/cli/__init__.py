"""The command line: ``vitrify emit | compile | run | info | describe``, one file each."""
