//! C19: claims of earlier boots, characters that are not printable, state directories, interfaces that are down.
