//! Internet messages: headers, trace fields, submission fix-ups, reports.
