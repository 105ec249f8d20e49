//! End-to-end tests. They are in `e2e/`, one binary, a module a matter; each starts the real daemon in a folder of its own.
