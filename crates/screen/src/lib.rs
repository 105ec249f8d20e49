//! Judging mail from outside, and signing our own.
