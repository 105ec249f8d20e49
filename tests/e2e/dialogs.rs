//! The dialogue files under `tests/dialogs`, a folder a standard, played against the real daemon: in the clear and again inside TLS, over
//! LMTP and its Unix socket, octet by octet where a file asks for it.
//!
//! The same files can be played against any other server that knows the users of [`world`]:
//! `PILLARBOX_DIALOG_TARGET=127.0.0.1:2525 PILLARBOX_DIALOG_FILTER=rfc5321 cargo nextest run -p pillarbox-tests -E 'test(another_server)' --no-capture`,
//! with `PILLARBOX_DIALOG_STARTTLS=1` inside TLS, and with `PILLARBOX_DIALOG_LISTENER=submission` (or `lmtp`) those of another port.

mod manners;
mod page;
mod play;
mod postfix;
mod world;

use std::path::PathBuf;

use pillarbox_testkit::{Dialog, Target};

/// Where the files are.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dialogs")
}

/// All dialogues of a folder.
fn load(group: &str) -> Vec<Dialog> {
    let dialogs = Dialog::load_all(&folder().join(group)).unwrap_or_else(|e| panic!("{e}"));
    assert!(!dialogs.is_empty(), "tests/dialogs/{group} holds no dialogue");
    dialogs
}

/// A file as the page and messages name it: `rfc5321/3.1-greeting`.
fn name(dialog: &Dialog) -> String {
    let path = dialog.path.strip_prefix(folder()).unwrap_or(&dialog.path);
    path.with_extension("").display().to_string()
}

/// A test for each folder, so that they run side by side and a failure names its standard.
macro_rules! groups {
    ($($group:ident),* $(,)?) => {
        const GROUPS: &[&str] = &[$(stringify!($group)),*];
        $(#[tokio::test]
        async fn $group() {
            play::all(&load(stringify!($group))).await;
        })*
    };
}
groups!(
    rfc5321, rfc1870, rfc2920, rfc3030, rfc6152, rfc2034, rfc3207, rfc8314, rfc4954, rfc4616, rfc5802, rfc6409, rfc3461, rfc6531, rfc2505,
    rfc7505, rfc8689, rfc4865, rfc2852, rfc6710, rfc9422, rfc2033, smuggling, proxy, limits, threats,
);

#[test]
fn every_folder_is_played() {
    let mut folders: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let mut groups: Vec<String> = GROUPS.iter().map(|g| (*g).to_owned()).collect();
    groups.sort();
    assert_eq!(folders, groups, "a folder of tests/dialogs has no test, or the other way round");
}

/// By hand: see the top of this file.
#[tokio::test]
async fn another_server() {
    let Ok(address) = std::env::var("PILLARBOX_DIALOG_TARGET") else { return };
    let address = address.parse().unwrap_or_else(|e| panic!("PILLARBOX_DIALOG_TARGET={address}: {e}; it must be IP:PORT"));
    let filter = std::env::var("PILLARBOX_DIALOG_FILTER").unwrap_or_default();
    let mut target = Target::new(address);
    target.variables = world::variables();
    let starttls = std::env::var_os("PILLARBOX_DIALOG_STARTTLS").is_some();
    let listener = std::env::var("PILLARBOX_DIALOG_LISTENER").unwrap_or_else(|_| "smtp".into());
    let mut differing = 0;
    for dialog in Dialog::load_all(&folder()).unwrap_or_else(|e| panic!("{e}")) {
        let ours_alone = !dialog.fact("set").is_empty() || !dialog.fact("alone").is_empty();
        let over_other = dialog.fact("over") == if starttls { "plain" } else { "tls" };
        if !name(&dialog).contains(&filter) || play::listener(&dialog) != listener || ours_alone || over_other {
            continue;
        }
        let target = if starttls { target.clone().starttls() } else { target.clone() };
        match dialog.run(&target).await {
            Ok(_) => println!("same    {}", name(&dialog)),
            Err(error) => {
                differing += 1;
                println!("differs {}: line {}: {}", name(&dialog), error.line, error.why);
            }
        }
    }
    println!("{differing} dialogues go otherwise there");
}
