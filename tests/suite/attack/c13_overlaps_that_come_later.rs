//! C13: overlaps that come later.
