//! For tests alone: scripted DNS, SMTP sink and source, fault injection, a daemon in a folder.
