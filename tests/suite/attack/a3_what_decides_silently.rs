//! A3: addresses that are not the host's, `*`, a setuid helper.
