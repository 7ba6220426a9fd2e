//! C15: the caller of C hears the notes that the helper prints.
