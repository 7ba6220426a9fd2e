//! C16: read-only commands need no right to write.
