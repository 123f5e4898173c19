//! In scripts, and on runners of continuous integration.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::lib::*;

/// A job as a runner starts it: a script of the shell's.
fn job(script: &str, directory: &Path) -> std::process::Output {
    Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_script_sees_qemus_exit_status_and_those_of_svirt_exec() {
    let directory = directory();
    image(directory.path(), "job.img");
    for (script, status) in [
        ("STUB='exit 0' svirt-exec $STUB_QEMU -hda job.img", 0),
        ("STUB='exit 7' svirt-exec $STUB_QEMU -hda job.img", 7),
        (
            "STUB='signal 15' svirt-exec $STUB_QEMU -hda job.img; exit $?",
            143,
        ),
        ("svirt-exec $STUB_QEMU -hda missing.img", 125),
        ("svirt-exec ./job.img", 126),
        ("svirt-exec qemu-system-of-nobody", 127),
        ("STUB='exit 3' svirt-exec $STUB_QEMU -hda job.img | cat", 3),
    ] {
        let script = script.replace("$STUB_QEMU", STUB);
        let output = job(&script, directory.path());
        assert_eq!(output.status.code(), Some(status), "{script}: {output:?}");
    }
    keepers_done();
}

/// A runner waits until nobody has the job's output open any more.
#[test]
#[ignore = "needs the bed: make test"]
fn nobody_holds_the_pipe_of_a_job_that_has_ended() {
    let directory = directory();
    let disk = image(directory.path(), "pipe.img");
    // While another guest reads the same CD-ROM, the keeper goes on after its own guest's end.
    let iso = image(directory.path(), "pipe.iso");
    let iso = iso.to_str().unwrap();
    let other = Guest::start_stub(svirt_exec([STUB, "-cdrom", iso]));
    let mut child = svirt_exec([STUB, "-cdrom", iso, "-hda", disk.to_str().unwrap()])
        .env("STUB", "write 1 done")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("done", ""));
    assert!(child.wait().unwrap().success());
    assert!(
        label(Path::new(iso)).contains(":virt_content_t:"),
        "the keeper has to wait"
    );
    other.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn twenty_jobs_at_once_each_have_a_pair_of_their_own() {
    let directory = directory();
    let jobs: Vec<_> = (0..20)
        .map(|number| {
            let disk = image(directory.path(), &format!("job-{number}.img"));
            let before = label(&disk);
            let mut command = Command::new("bash");
            command
                .args(["-c", "exec svirt-exec \"$@\" 2>&1", "job", STUB, "-hda"])
                .arg(&disk)
                .env("STUB", "wait")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            (disk, before, command.spawn().unwrap())
        })
        .collect();
    let mut guests = Vec::new();
    for (disk, before, mut child) in jobs {
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert!(line.starts_with("ready"), "{line}");
        guests.push((disk, before, child, out));
    }
    let mut levels: Vec<String> = guests
        .iter()
        .map(|(disk, _, child, _)| {
            let process = level(&process_label(child.id()));
            assert_eq!(level(&label(disk)), process);
            process
        })
        .collect();
    levels.sort();
    levels.dedup();
    assert_eq!(levels.len(), 20);
    run(&[SVIRT_EXEC, "verify"]);
    for (_, _, child, _) in &mut guests {
        drop(child.stdin.take());
    }
    for (_, _, child, _) in &mut guests {
        assert!(child.wait().unwrap().success());
    }
    run(&[SVIRT_EXEC, "restore"]);
    for (disk, before, _, _) in &guests {
        assert_eq!(label(disk), *before);
    }
}

/// What a runner does to a job whose time is up: everything in its control group is killed.
fn killed_by_its_time_limit(disk: &Path) {
    let unit = format!("svirt-job-{}", std::process::id());
    let mut command = Command::new("systemd-run");
    command.args([
        "--quiet",
        "--collect",
        "--unit",
        &unit,
        "-p",
        "Environment=STUB=pause",
        SVIRT_EXEC,
    ]);
    succeeds(command.args([STUB, "-hda"]).arg(disk));
    wait_until("the job's guest runs", || label(disk).contains(":s0:c"));
    run(&["systemctl", "kill", "-s", "KILL", &unit]);
    wait_until("the job is gone", || {
        !Command::new("systemctl")
            .args(["is-active", "--quiet", &unit])
            .status()
            .unwrap()
            .success()
    });
    assert!(
        label(disk).contains(":s0:c"),
        "nobody was left to put it back"
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_job_killed_by_its_time_limit_leaves_nothing_labelled_after_the_next_step() {
    let directory = directory();
    let disk = image(directory.path(), "limit.img");
    let before = label(&disk);
    // The clean-up step.
    killed_by_its_time_limit(&disk);
    run(&[SVIRT_EXEC, "restore", "--all"]);
    assert_eq!(label(&disk), before);
    // The next job.
    killed_by_its_time_limit(&disk);
    succeeds(svirt_exec([STUB, "-S"]).env("STUB", "exit 0"));
    assert_eq!(label(&disk), before);
    // The unit that runs at boot.
    killed_by_its_time_limit(&disk);
    run(&["systemctl", "start", "svirt-exec-restore.service"]);
    assert_eq!(label(&disk), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_health_of_a_runner_is_a_gate() {
    let output = svirt_exec(["doctor", "--json"]).output().unwrap();
    let document = json(&output);
    assert_eq!(document["ok"], output.status.success(), "{document}");
}

/// A line in review: what it labels is a file that is kept beside it.
#[test]
#[ignore = "needs the bed: make test"]
fn a_plan_is_compared_with_the_one_that_is_kept() {
    let directory = directory();
    image(directory.path(), "disk.img");
    fs::write(
        directory.path().join("guest.conf"),
        "qemu-system-x86_64 -accel tcg -drive file=disk.img,format=raw",
    )
    .unwrap();
    let plan = "svirt-exec plan --json --config guest.conf | python3 -c 'import json, sys\n\
                for r in json.load(sys.stdin)[\"resources\"]: print(r[\"class\"], r[\"access\"], r[\"path\"])'";
    let kept = format!("exclusive write {}/disk.img\n", directory.path().display());
    let output = job(plan, directory.path());
    assert_eq!(stdout(&output), kept, "{output:?}");
}

/// A QEMU that was built in the job's own checkout has the label of the checkout.
#[test]
#[ignore = "needs the bed: make test"]
fn a_qemu_from_the_source_tree_says_the_command_that_makes_it_work() {
    let directory = directory();
    let disk = image(directory.path(), "built.img");
    let built = directory.path().join("build");
    fs::create_dir(&built).unwrap();
    let qemu = built.join("qemu-system-x86_64");
    fs::copy(STUB, &qemu).unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    run(&["restorecon", "-RF", directory.path().to_str().unwrap()]);
    let launch = || {
        svirt_exec([qemu.as_os_str(), "-hda".as_ref(), disk.as_os_str()])
            .env("STUB", "dump")
            .output()
            .unwrap()
    };
    let said = refused(&launch(), &[]);
    println!("{said}");
    let command = said
        .lines()
        .find_map(|line| Some(&line[line.find("chcon ")?..]))
        .unwrap_or_else(|| panic!("no command: {said}"));
    let command = command.split([';', ',']).next().unwrap();
    run(&["sh", "-c", command]);
    let output = launch();
    assert!(
        stdout(&output).contains(":svirt_prot_exec_t:s0:c"),
        "{output:?}"
    );
    keepers_done();
}

/// A runner that is a container: selinuxfs is hidden, other processes too.
#[test]
#[ignore = "needs the bed: make test"]
fn a_runner_in_a_container_says_what_to_do() {
    let directory = directory();
    let disk = image(directory.path(), "contained.img");
    let before = label(&disk);
    let script = format!(
        "umount /sys/fs/selinux; SVIRT_EXEC_UNCONFINED=allow exec {SVIRT_EXEC} {STUB} -hda {}",
        disk.display()
    );
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "sh",
            "-c",
            &script,
        ])
        .env("STUB", "exit 0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    refused(&output, &["outside the container"]);
    assert_eq!(label(&disk), before);
}

/// Other people's launchers look QEMU up in PATH, or let one name it: both find svirt-exec by the name
/// of a QEMU.
#[test]
#[ignore = "needs the bed: make test"]
fn a_launcher_that_looks_qemu_up_has_confined_guests() {
    let directory = directory();
    let disk = image(directory.path(), "quick.img");
    let before = label(&disk);
    let script = directory.path().join("quick");
    fs::write(
        &script,
        "#!/bin/sh\nexec ${QEMU:-qemu-system-x86_64} -machine pc -accel tcg -m 32 -display none \
         -nodefaults -S -qmp stdio -drive \"file=$1,format=raw\"\n",
    )
    .unwrap();
    let path = std::env::var("PATH").unwrap();
    let link = format!("/usr/libexec/svirt-exec/{QEMU}");
    for (variable, value) in [
        ("PATH", format!("/usr/libexec/svirt-exec:{path}")),
        ("QEMU", link),
    ] {
        let mut command = Command::new("sh");
        command.arg(&script).arg(&disk).env(variable, value);
        let guest = Guest::start(command, "{\"QMP\"");
        assert!(
            guest.label().contains(":svirt_prot_exec_t:s0:c"),
            "{}",
            guest.label()
        );
        assert_eq!(level(&label(&disk)), level(&guest.label()));
        verified(&guest.child.id().to_string());
        guest.kill();
        assert_eq!(label(&disk), before);
    }
}

/// QEMU's packages have more names for QEMU than one, `kvm` among them.
#[test]
#[ignore = "needs the bed: make test"]
fn each_name_that_qemus_packages_have_for_a_qemu_is_confined_by_path() {
    let names = run(&[
        "sh",
        "-c",
        "sed -nE 's,^/usr/bin/(kvm|qemu-kvm|qemu-system-.*)$,\\1,p' /var/lib/dpkg/info/qemu-system-*.list",
    ]);
    assert!(
        names.lines().count() > 3 && names.contains("kvm\n"),
        "{names}"
    );
    let path = std::env::var("PATH").unwrap();
    let path = format!("/usr/libexec/svirt-exec:{path}");
    for name in names.lines() {
        // One of them knows KVM, which is not here, and nothing else but what tests of QEMU's use.
        let accel = if name.ends_with("microvm") {
            "qtest"
        } else {
            "tcg"
        };
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" \"$@\"", name])
            .args([
                "-machine", "none", "-accel", accel, "-display", "none", "-S",
            ])
            .args(["-chardev", "stdio,id=q", "-mon", "chardev=q,mode=control"])
            .env("PATH", &path);
        let guest = Guest::start(command, "{\"QMP\"");
        let label = guest.label();
        assert!(
            label.contains(":svirt_") && label.contains(":s0:c"),
            "{name}: {label}"
        );
        guest.kill();
    }
    let doctor = svirt_exec(["doctor", "--json"])
        .env("PATH", &path)
        .output()
        .unwrap();
    let links = member(&json(&doctor)["checks"], "links").clone();
    assert!(
        links["detail"]
            .as_str()
            .unwrap()
            .starts_with("each QEMU in PATH"),
        "{links}"
    );
    // What is not there has no link: who tries one name after another finds the next.
    assert!(!Path::new("/usr/libexec/svirt-exec/qemu-system-sparc").exists());
    assert!(!Path::new("/usr/libexec/svirt-exec/qemu-kvm").exists());
}

/// One that QEMU's package does not have, and one that is no QEMU's.
#[test]
#[ignore = "needs the bed: make test"]
fn a_name_that_no_link_covers_is_told_and_one_of_a_tool_is_refused() {
    let directory = directory();
    let own = directory.path().join("qemu-system-mine");
    fs::copy(STUB, &own).unwrap();
    let path = format!("{}:/usr/bin", directory.path().display());
    let doctor = svirt_exec(["doctor", "--json"])
        .env("PATH", path)
        .output()
        .unwrap();
    let links = member(&json(&doctor)["checks"], "links").clone();
    assert_eq!(links["ok"], true, "{links}");
    assert!(
        links["detail"]
            .as_str()
            .unwrap()
            .contains(own.to_str().unwrap()),
        "{links}"
    );

    let tool = directory.path().join("qemu-nbd");
    std::os::unix::fs::symlink(SVIRT_EXEC, &tool).unwrap();
    refused(
        &Command::new(&tool).arg("disk.img").output().unwrap(),
        &["'qemu-nbd'", "no other program"],
    );
}
