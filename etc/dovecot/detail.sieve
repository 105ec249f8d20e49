# Files mail for alice+lists@… into the folder `lists` where there is one, after the user's own script left it for the inbox.
require ["envelope", "subaddress", "variables", "mailbox", "fileinto"];

if envelope :matches :detail "to" "*" {
    set "folder" "${1}";
    if mailboxexists "${folder}" {
        fileinto "${folder}";
    }
}
