//! (head comment)
