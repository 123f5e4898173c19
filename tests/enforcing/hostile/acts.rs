//! What a launcher and its forks try once somebody has taken them over.

use std::path::Path;

use crate::lib::*;

/// A label that a launcher gives to files of its guests.
const OURS: &str = "unconfined_u:object_r:svirt_image_t:s0:c1,c2";

/// A launcher that was taken over, and what is around it.
pub struct Launcher<'a> {
    /// Its own label.
    pub label: &'a str,
    /// A file that no guest uses.
    pub bare: &'a str,
    /// A file of a guest that runs.
    pub taken: &'a str,
    /// That guest.
    pub guest: u32,
    /// The keeper of that guest.
    pub keeper: &'a str,
    /// Where it may make files by their directory's mode.
    pub directory: &'a Path,
}

/// Returns acts of a launcher, each with the class and a permission of its denial.
pub fn of_a_launcher(launcher: &Launcher<'_>) -> Vec<(String, &'static str, &'static str)> {
    let Launcher {
        label,
        bare,
        taken,
        guest: pid,
        keeper,
        directory,
    } = launcher;
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let as_type = |kind: &str| label.replace("svirt_launcher_t", kind);
    let object = |kind: &str, level: &str| format!("unconfined_u:object_r:{kind}:{level}");
    vec![
        ("read /etc/shadow".into(), "file", "read"),
        (format!("relabel /etc/shadow {OURS}"), "file", "relabelfrom"),
        (format!("relabel /etc/passwd {OURS}"), "file", "relabelfrom"),
        (format!("relabel /etc {OURS}"), "dir", "relabelfrom"),
        (format!("relabel /root/.ssh {OURS}"), "dir", "relabelfrom"),
        (
            format!("relabel /root/.ssh/authorized_keys {OURS}"),
            "file",
            "relabelfrom",
        ),
        ("read /root/.ssh/authorized_keys".into(), "file", "read"),
        (
            format!("relabel /usr/bin/true {OURS}"),
            "file",
            "relabelfrom",
        ),
        (
            format!("relabel /usr/bin/svirt-exec {OURS}"),
            "file",
            "relabelfrom",
        ),
        (
            format!("relabel /dev/mem {OURS}"),
            "chr_file",
            "relabelfrom",
        ),
        (
            format!("relabel /dev/vda {OURS}"),
            "blk_file",
            "relabelfrom",
        ),
        (
            format!("relabel {bare} {}", object("bin_t", "s0")),
            "file",
            "relabelto",
        ),
        (
            format!("relabel {bare} {}", object("virt_image_t", "s0")),
            "file",
            "relabelto",
        ),
        (format!("relabel {taken} {OURS}"), "file", "relabelfrom"),
        (
            format!("relabel {taken} {}", object("svirt_image_t", "s0")),
            "file",
            "relabelfrom",
        ),
        (
            format!("relabel /proc/{pid}/fd/0 {OURS}"),
            "fifo_file",
            "relabelto",
        ),
        (format!("open-rw {bare}"), "file", "open"),
        (format!("read {bare}"), "file", "open"),
        (format!("open-rw {taken}"), "file", "write"),
        (format!("unlink {bare}"), "dir", "remove_name"),
        (format!("link {bare} {}", at("link")), "file", "link"),
        (
            format!("rename {bare} {}", at("other")),
            "dir",
            "remove_name",
        ),
        (format!("chmod {bare}"), "file", "setattr"),
        (
            format!("make-as {} {}", object("bin_t", "s0"), at("program")),
            "file",
            "create",
        ),
        ("make /etc/cron.d/ours".into(), "dir", "write"),
        ("open-rw /etc/passwd".into(), "file", "write"),
        ("read /dev/vda".into(), "blk_file", "read"),
        ("read /dev/mem".into(), "chr_file", "read"),
        (format!("node {}", at("node")), "capability", "mknod"),
        ("tcp 22".into(), "tcp_socket", "create"),
        ("tcp-listen".into(), "tcp_socket", "create"),
        ("udp".into(), "udp_socket", "create"),
        ("raw".into(), "rawip_socket", "create"),
        ("packet".into(), "packet_socket", "create"),
        ("netlink 9".into(), "netlink_audit_socket", "create"),
        ("exec /bin/sh".into(), "file", "execute"),
        ("exec /usr/bin/id".into(), "file", "open"),
        (
            format!("exec-as {} /usr/bin/svirt-exec", as_type("unconfined_t")),
            "process",
            "transition",
        ),
        (
            format!("exec-as {} /usr/bin/id", as_type("svirt_t")),
            "file",
            "open",
        ),
        (
            format!("setcon {}", as_type("unconfined_t")),
            "process",
            "dyntransition",
        ),
        (
            format!("setcon {}", as_type("svirt_launcher_keeper_t")),
            "process",
            "dyntransition",
        ),
        (
            format!("setcon {}", as_type("svirt_t")),
            "process",
            "dyntransition",
        ),
        (format!("ptrace {pid}"), "process", "ptrace"),
        (format!("process-vm-read {pid}"), "process", "ptrace"),
        (format!("kill 9 {pid}"), "process", "sigkill"),
        (format!("kill 9 {keeper}"), "process", "sigkill"),
        ("kill 15 1".into(), "process", "signal"),
        (
            "write /sys/fs/selinux/load policy".into(),
            "security",
            "load_policy",
        ),
        (
            "write /sys/fs/selinux/enforce 0".into(),
            "security",
            "setenforce",
        ),
        (
            "write /sys/fs/selinux/booleans/virt_use_nfs 1".into(),
            "file",
            "write",
        ),
        ("load-module".into(), "capability", "sys_module"),
        ("mount".into(), "capability", "sys_admin"),
        ("unshare user".into(), "user_namespace", "create"),
        ("unshare mount".into(), "capability", "sys_admin"),
        ("chroot".into(), "capability", "sys_chroot"),
        ("bpf".into(), "bpf", "map_create"),
        ("kexec".into(), "capability", "sys_boot"),
        ("reboot".into(), "capability", "sys_boot"),
        ("set-time".into(), "capability", "sys_time"),
        ("set-uid 1000".into(), "capability", "setuid"),
    ]
}

/// Returns acts of the processes of a launcher that open images and read their headers.
pub fn of_a_fork(launcher: &str, bare: &str, new: &str) -> Vec<String> {
    vec![
        format!("setcon {launcher}"),
        format!("setcon {}", launcher.replace("svirt_launcher_t", "svirt_t")),
        format!("relabel {bare} {OURS}"),
        format!("open-rw {bare}"),
        format!("make {new}"),
        format!("unlink {bare}"),
        format!("chmod {bare}"),
        "read /etc/shadow".into(),
        "read /dev/vda".into(),
        format!("list {GUESTS}"),
        "read /proc/1/environ".into(),
        "ptrace 1".into(),
        "kill 0 1".into(),
        "tcp 22".into(),
        "udp".into(),
        "netlink 0".into(),
        "unix /run/dbus/system_bus_socket".into(),
        "write /sys/fs/selinux/enforce 0".into(),
        "exec /bin/sh".into(),
        format!("exec {SVIRT_EXEC}"),
        format!("exec {STUB}"),
        "unshare user".into(),
        "mount".into(),
        "bpf".into(),
        "set-uid 1000".into(),
    ]
}
