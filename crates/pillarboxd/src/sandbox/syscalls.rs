//! Which system calls the daemon may still make once it serves: two seccomp filters, one that kills and one that leaves only what is needed.
//!
//! A call that nothing here makes is answered ENOSYS, as an older kernel answers it: the C library and Rust's own then take their older way
//! (`clone3` becomes `clone`, `fchmodat2` becomes `fchmodat`), so that a C library newer than this list still works. EPERM would stop them.
//! What only an intruder asks for ends the process at once.
//!
//! The list is for glibc of Debian 12 and newer and for musl, on x86-64 and arm64.

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

/// A system call's number.
type Call = libc::c_long;

/// Reading, writing and waiting.
const IO: &[Call] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // The drop folder is watched.
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Copies of bodies within the kernel.
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
];

/// Files and folders. Which of them is landlock's to say.
const FILES: &[Call] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    // Mail and passwd-files are given to the owner of their folder.
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
    // The locks of sled and of the queue.
    libc::SYS_flock,
    libc::SYS_umask,
    // Journald takes long lines as a file in memory.
    libc::SYS_memfd_create,
];

/// Sockets that exist. Which kinds may be made is filtered by family.
const SOCKETS: &[Call] = &[
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    // The C library's resolver asks for both families at once.
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
];

/// Memory, threads, time, signals: what the C library and the runtime need to exist.
const PROCESS: &[Call] = &[
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    // `abort` of the C library.
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    // The C library reads the stack's bound by it for each thread.
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
];

/// Older forms of the above that only this architecture has; musl and some libraries still use them.
#[cfg(target_arch = "x86_64")]
const OLDER: &[Call] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_link,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_time,
    libc::SYS_arch_prctl,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[Call] = &[];

/// What no mail server does: another program, another process' memory, the kernel, other namespaces. Asked for, it ends the process.
const DEADLY: &[Call] = &[
    // Programs: the one that may be run is run by another process, see `hook`.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_personality,
];

/// `TIOCGWINSZ` and its like are asked of standard error; `FIONBIO` and `FIOCLEX` of sockets. Nothing pushes characters into a terminal (`TIOCSTI`).
#[allow(clippy::unnecessary_cast, reason = "with musl they are of another type")]
const IOCTLS: &[u64] = &[
    libc::FIONBIO as u64,
    libc::FIONREAD as u64,
    libc::FIOCLEX as u64,
    libc::FIONCLEX as u64,
    libc::TCGETS as u64,
    // TCGETS2, by which newer C libraries ask whether something is a terminal.
    0x802c_542a,
    libc::TIOCGWINSZ as u64,
];

/// IP, local sockets, and netlink for the addresses of this machine.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Names of threads and of memory; questions about what this process may.
const PRCTLS: &[i32] = &[libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA, libc::PR_GET_DUMPABLE, libc::PR_CAPBSET_READ];

const WRITE_EXEC: u64 = (libc::PROT_WRITE | libc::PROT_EXEC) as u64;

/// Puts both filters in force for every thread of the process, and for those to come.
pub(super) fn enter() -> anyhow::Result<()> {
    for program in programs()? {
        seccompiler::apply_filter_all_threads(&program)?;
    }
    Ok(())
}

/// The deadly calls first: behind the second filter none could be added.
fn programs() -> anyhow::Result<[BpfProgram; 2]> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let deadly = SeccompFilter::new(plain(DEADLY), SeccompAction::Allow, SeccompAction::KillProcess, arch)?;
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let allowed = SeccompFilter::new(allowed()?, missing, SeccompAction::Allow, arch)?;
    Ok([deadly.try_into()?, allowed.try_into()?])
}

fn plain(calls: &[Call]) -> BTreeMap<i64, Vec<SeccompRule>> {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn allowed() -> anyhow::Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules = BTreeMap::new();
    for group in [IO, FILES, SOCKETS, PROCESS, OLDER] {
        rules.append(&mut plain(group));
    }
    let one = |at: u8, is: u64| Ok::<_, anyhow::Error>(SeccompRule::new(vec![SeccompCondition::new(at, Dword, Eq, is)?])?);
    let masked =
        |at: u8, mask: u64, is: u64| Ok::<_, anyhow::Error>(SeccompRule::new(vec![SeccompCondition::new(at, Dword, MaskedEq(mask), is)?])?);
    let thread = libc::CLONE_THREAD as u64;
    // Threads, never processes. (`clone3` hides its flags from a filter: its absence makes the C library use this.)
    rules.insert(libc::SYS_clone, vec![masked(0, thread, thread)?]);
    // Memory is written or executed, never both; loaded libraries (name services) are mapped executable from their files.
    let either = [0, libc::PROT_WRITE as u64, libc::PROT_EXEC as u64];
    rules.insert(libc::SYS_mmap, either.into_iter().map(|is| masked(2, WRITE_EXEC, is)).collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_mprotect, vec![masked(2, libc::PROT_EXEC as u64, 0)?]);
    rules.insert(libc::SYS_ioctl, IOCTLS.iter().map(|request| one(1, *request)).collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_socket, FAMILIES.iter().map(|family| one(0, *family as u64)).collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_prctl, PRCTLS.iter().map(|what| one(0, *what as u64)).collect::<Result<_, _>>()?);
    Ok(rules)
}
