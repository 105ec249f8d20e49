//! What a status code means to the person who wrote the message, and what to do about it.

use pillarbox_smtp::EnhancedCode;

/// One or two sentences for a failure with this status (RFC 3463, registry of RFC 5248).
pub(super) fn failure(status: EnhancedCode) -> &'static str {
    match (status.1, status.2) {
        (1, 1) => "The address does not exist. Check it for a typing error, or ask the recipient for the present one by other means.",
        (1, 2) => "The domain after the @ does not exist or cannot take mail. Check it for a typing error.",
        (1, 3) => "The address is malformed. Check it for spaces, missing dots and the like.",
        (1, 6) => "The mailbox has moved, and no new address is known.",
        (1, 10) => "The domain after the @ says that it takes no mail at all. Check it for a typing error.",
        (1, 7 | 8) => "The receiving server does not accept your address as a sender. Your server's administrator can find out why.",
        (2, 1) => "The mailbox is disabled. Reach the recipient by other means.",
        (2, 2) => "The recipient's mailbox is full. Try again later, or tell the recipient by other means.",
        (2, 3) | (3, 4) => {
            "The message is larger than the receiving server accepts. Send it without attachments, or share the files in another way."
        }
        (2, 4) => "The address is a mailing list, and the list refused the message.",
        (4, 1) | (4, 2) => {
            "The receiving server could not be reached during all that time. Try again later, or tell the recipient by other means."
        }
        (4, 3 | 4) => {
            "The way to the recipient's server could not be found in the DNS. If the address is right, its administrator must repair this."
        }
        (4, 6) => "The message went round in circles between servers. The recipient's administrator must repair this.",
        (4, 7) => "The message could not be delivered within the time allowed. Try again later, or tell the recipient by other means.",
        (5, 3) => "The message has more recipients than the receiving server accepts at once. Send it to fewer at a time.",
        (6, 3) => {
            "The message holds 8-bit or binary content that the receiving server cannot take and that cannot be converted without breaking a signature."
        }
        (6, 7) | (1, 9) => {
            "An address in this message has letters beyond ASCII, and the receiving server does not support such addresses yet."
        }
        (6, _) => "The receiving server could not handle the form of the message.",
        (7, 1) => "The receiving server refused the message by its own rules. Its words above may say why.",
        (7, 10 | 30) => {
            "The message was sent with the demand for an encrypted connection, and the receiving server offers none that can be trusted."
        }
        (7, 20..=29) => {
            "The receiving server could not verify that the message comes from your domain. Show this report to your server's administrator."
        }
        (7, _) => "The receiving server refused the message for reasons of security or policy. Its words above may say why.",
        _ => "Its words above may say why. If they do not help, show this report to your server's administrator.",
    }
}
