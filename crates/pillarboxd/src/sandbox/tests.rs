//! The sandbox entered for real, each time in a process of its own: this test program started anew.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use super::*;

/// Names the deed to be tried in a process that was started by [`in_sandbox`].
const DEED: &str = "PILLARBOX_TEST_DEED";
/// Names the folder that stands for state, mail and runtime.
const HOME: &str = "PILLARBOX_TEST_HOME";

/// Runs this test again in a process of its own, where `deed` is done behind the closed door. Answers with how it ended; `None` in that process itself.
fn in_sandbox(test: &str, deed: &str, act: impl FnOnce(&Path)) -> Option<(ExitStatus, String)> {
    if let Some(asked) = std::env::var_os(DEED) {
        if asked == *deed {
            let home = PathBuf::from(std::env::var_os(HOME).unwrap());
            let mut config = Config::default();
            for (path, name) in [(&mut config.paths.state, "state"), (&mut config.paths.mail, "mail"), (&mut config.paths.runtime, "run")] {
                *path = home.join(name);
                std::fs::create_dir_all(&path).unwrap();
            }
            rustix::thread::set_no_new_privs(true).unwrap();
            let sandbox = Sandbox::enter(&config, &home.join("etc/pillarbox.toml")).unwrap();
            assert!(sandbox.info.calls, "{:?}", sandbox.info);
            act(&home);
            std::process::exit(0);
        }
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("etc")).unwrap();
    std::fs::create_dir(home.path().join("outside")).unwrap();
    std::fs::write(home.path().join("outside/secret"), "secret").unwrap();
    std::fs::write(home.path().join("etc/pillarbox.toml"), "").unwrap();
    let run = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(DEED, deed)
        .env(HOME, home.path())
        .output()
        .unwrap();
    Some((run.status, String::from_utf8_lossy(&run.stderr).into_owned()))
}

#[track_caller]
fn killed(outcome: Option<(ExitStatus, String)>) {
    if let Some((status, output)) = outcome {
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}: {output}");
    }
}

#[track_caller]
fn done(outcome: Option<(ExitStatus, String)>) {
    if let Some((status, output)) = outcome {
        assert!(status.success(), "{status}: {output}");
    }
}

#[test]
fn no_program_can_be_started() {
    // Rust's own way would fork first, which is refused already; this asks in place.
    killed(in_sandbox("sandbox::tests::no_program_can_be_started", "exec", |_| {
        let error = std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true"));
        panic!("{error}");
    }));
}

#[test]
fn no_process_can_be_forked() {
    done(in_sandbox("sandbox::tests::no_process_can_be_forked", "fork", |_| {
        let error = Command::new("/bin/true").status().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}");
        // Threads can.
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
    }));
}

#[test]
fn nobody_else_s_memory_can_be_read() {
    killed(in_sandbox("sandbox::tests::nobody_else_s_memory_can_be_read", "unshare", |_| {
        let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
    }));
}

#[test]
fn files_outside_are_out_of_reach_and_those_inside_are_not() {
    done(in_sandbox("sandbox::tests::files_outside_are_out_of_reach_and_those_inside_are_not", "files", |home| {
        let denied = |result: std::io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        };
        denied(std::fs::read(home.join("outside/secret")).map(drop));
        denied(std::fs::write(home.join("outside/new"), "x"));
        denied(std::fs::remove_file(home.join("outside/secret")));
        denied(std::fs::write(home.join("etc/pillarbox.toml"), "x"));
        std::os::unix::fs::symlink(home.join("outside"), home.join("state/link")).unwrap_err();
        std::fs::read(home.join("etc/pillarbox.toml")).unwrap();
        std::fs::read("/etc/passwd").unwrap();
        std::fs::create_dir(home.join("mail/tmp")).unwrap();
        std::fs::create_dir(home.join("mail/new")).unwrap();
        std::fs::write(home.join("mail/tmp/1"), "x").unwrap();
        std::fs::rename(home.join("mail/tmp/1"), home.join("mail/new/1")).unwrap();
        std::fs::hard_link(home.join("mail/new/1"), home.join("mail/tmp/2")).unwrap();
        std::os::unix::net::UnixListener::bind(home.join("run/control.sock")).unwrap();
        std::fs::remove_file(home.join("run/control.sock")).unwrap();
    }));
}

#[test]
fn no_new_port_is_opened_and_connections_go_on() {
    done(in_sandbox("sandbox::tests::no_new_port_is_opened_and_connections_go_on", "ports", |_| {
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = here.local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        drop(here);
        let error = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW, None).is_err());
    }));
}

#[test]
fn off_is_off() {
    let mut config = Config::default();
    config.security.sandbox = "off".to_owned();
    let sandbox = Sandbox::enter(&config, Path::new("/etc/pillarbox/pillarbox.toml")).unwrap();
    assert_eq!((sandbox.info.files.as_str(), sandbox.info.calls), ("none", false));
    assert!(std::fs::read_dir("/").is_ok());
}

#[test]
fn the_hook_of_the_start_is_the_hook() {
    let mut config = Config::default();
    config.security.sandbox = "off".to_owned();
    let sandbox = Sandbox::enter(&config, Path::new("/etc/pillarbox/pillarbox.toml")).unwrap();
    sandbox.admits(&config).unwrap();
    config.tls.acme = Some(pillarbox_config::Acme { dns_hook: "/tmp/evil".into(), ..pillarbox_config::Acme::default() });
    assert!(sandbox.admits(&config).unwrap_err().to_string().contains("restart"));
}
