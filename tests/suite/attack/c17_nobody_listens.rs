//! C17: trace tells whether somebody listens.
