//! B11: with SIGCHLD ignored, limits over pfctl always fail.
