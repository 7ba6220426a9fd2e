//! C12: publish accepts what is dead without a word.
