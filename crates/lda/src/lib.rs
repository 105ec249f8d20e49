//! The Transport for mailboxes: Maildir++, quota, folders, vacation, LMTP out.
