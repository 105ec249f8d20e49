//! The admin API: shared types, server and client over a Unix socket.
