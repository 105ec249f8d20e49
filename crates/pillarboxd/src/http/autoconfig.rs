//! The XML by which Thunderbird and Outlook set up an account: IMAP over TLS on 993 and submission over TLS on 465, the address as login name.

use pillarbox_smtp::Mailbox;

/// Thunderbird's `config-v1.1.xml`.
pub(super) fn thunderbird(domain: &str, hostname: &str) -> String {
    let (domain, hostname) = (escaped(domain), escaped(hostname));
    let server = |kind: &str, tag: &str, port: u16, socket: &str| {
        format!(
            "    <{tag} type=\"{kind}\">\n      <hostname>{hostname}</hostname>\n      <port>{port}</port>\n      <socketType>{socket}</socketType>\n      \
             <authentication>password-cleartext</authentication>\n      <username>%EMAILADDRESS%</username>\n    </{tag}>\n"
        )
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<clientConfig version=\"1.1\">\n  <emailProvider id=\"{domain}\">\n    <domain>{domain}</domain>\n    \
         <displayName>{domain}</displayName>\n    <displayShortName>{domain}</displayShortName>\n{}{}{}{}  </emailProvider>\n</clientConfig>\n",
        server("imap", "incomingServer", 993, "SSL"),
        server("imap", "incomingServer", 143, "STARTTLS"),
        server("smtp", "outgoingServer", 465, "SSL"),
        server("smtp", "outgoingServer", 587, "STARTTLS"),
    )
}

/// Outlook's answer to an autodiscover request.
pub(super) fn outlook(address: &Mailbox, hostname: &str) -> String {
    let (login, hostname) = (escaped(&address.to_string()), escaped(hostname));
    let protocol = |kind: &str, port: u16| {
        format!(
            "      <Protocol>\n        <Type>{kind}</Type>\n        <Server>{hostname}</Server>\n        <Port>{port}</Port>\n        \
             <LoginName>{login}</LoginName>\n        <SPA>off</SPA>\n        <SSL>on</SSL>\n        <AuthRequired>on</AuthRequired>\n      </Protocol>\n"
        )
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006\">\n  \
         <Response xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a\">\n    <Account>\n      \
         <AccountType>email</AccountType>\n      <Action>settings</Action>\n{}{}    </Account>\n  </Response>\n</Autodiscover>\n",
        protocol("IMAP", 993),
        protocol("SMTP", 465),
    )
}

/// `<EMailAddress>` of a request. Only this one element is of interest, so it is looked for and not parsed around.
pub(super) fn requested_address(body: &[u8]) -> Option<Mailbox> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<EMailAddress>")?;
    let (address, _) = rest.split_once("</EMailAddress>")?;
    address.trim().parse().ok()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_and_nothing_from_it_becomes_markup() {
        let request =
            b"<?xml version=\"1.0\"?><Autodiscover><Request><EMailAddress>bob@example.org</EMailAddress></Request></Autodiscover>";
        assert_eq!(requested_address(request).unwrap().to_string(), "bob@example.org");
        assert!(requested_address(b"<EMailAddress>no address</EMailAddress>").is_none());
        assert!(requested_address(b"<EMailAddress>").is_none());
        let hostile: Mailbox = "\"<x>&\"@example.org".parse().unwrap();
        assert!(outlook(&hostile, "mail.example.org").contains("&quot;&lt;x&gt;&amp;&quot;@example.org"));
    }
}
