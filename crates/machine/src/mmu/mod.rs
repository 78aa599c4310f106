//! Address translation.
