//! The commands that look at a running system: list, verify, denials, doctor.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::lib::*;

fn answer(words: &[&str]) -> Output {
    svirt_exec(words).output().unwrap()
}

fn problems(verdict: &Value) -> String {
    verdict["findings"].to_string()
}

#[test]
#[ignore = "needs the bed: make test"]
fn list_shows_each_guest_with_its_pair_its_names_and_what_is_labelled() {
    let directory = directory();
    let disks = [
        image(directory.path(), "a.img"),
        image(directory.path(), "b.img"),
    ];
    let ours = Guest::named("list-a", &disks[0]);
    // A name from QEMU's own line.
    let mut command = svirt_exec([STUB, "-name", "guest=list-b,debug-threads=on", "-hda"]);
    command.arg(&disks[1]);
    let theirs = Guest::start_stub(command);
    let list = json(&answer(&["list", "--json"]));
    for ((name, guest), disk) in [("list-a", &ours), ("list-b", &theirs)]
        .into_iter()
        .zip(&disks)
    {
        let entry = member(&list["guests"], name);
        let label = guest.label();
        assert_eq!(entry["pid"], guest.child.id());
        assert_eq!(entry["context"], label);
        assert_eq!(
            format!("s0:{}", entry["pair"].as_str().unwrap()),
            level(&label)
        );
        assert_eq!(entry["user"], "root");
        assert_eq!(entry["owner"], "svirt-exec");
        let resource = &entry["resources"][0];
        assert_eq!(resource["path"], disk.to_str().unwrap());
        assert_eq!(resource["class"], "exclusive");
        assert_eq!(resource["current"], crate::lib::label(disk));
        assert_eq!(resource["current"], resource["label"]);
    }
    let human = stdout(&answer(&["list"]));
    for part in ["list-a", "list-b", "b.img", &ours.child.id().to_string()] {
        assert!(human.contains(part), "{part}: {human}");
    }
    // Another user sees the guests, and not what is labelled for them.
    let output = as_user("alice").args(["list", "--json"]).output();
    let list = json(&output.unwrap());
    let entry = member(&list["guests"], "list-b");
    assert_eq!(entry["owner"], "unknown");
    assert_eq!(entry["resources"].as_array().unwrap().len(), 0);
    ours.end();
    theirs.end();
    let list = json(&answer(&["list", "--json"]));
    assert_eq!(list["guests"].as_array().unwrap().len(), 0, "{list}");
}

#[test]
#[ignore = "needs the bed: make test"]
fn verify_proves_two_guests_and_names_a_disk_that_was_given_another_level() {
    let directory = directory();
    let disks = [
        image(directory.path(), "a.img"),
        image(directory.path(), "b.img"),
    ];
    let a = Guest::named("verify-a", &disks[0]);
    let b = Guest::named("verify-b", &disks[1]);
    let output = answer(&["verify", "--json"]);
    let verdict = json(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{verdict} {}",
        stderr(&output)
    );
    assert_eq!(verdict["ok"], true);
    let pids = [a.child.id(), b.child.id()];
    let cell = |row: u32, column: u32| {
        let cells = verdict["matrix"].as_array().unwrap();
        let found = cells
            .iter()
            .find(|cell| cell["guest"] == row && cell["resources_of"] == column);
        found.unwrap()["may"].as_str().unwrap().to_owned()
    };
    assert_eq!(cell(pids[0], pids[0]), "=");
    assert_eq!(cell(pids[0], pids[1]), "-");
    assert_eq!(cell(pids[1], pids[0]), "-");
    for guest in verdict["guests"].as_array().unwrap() {
        // Its libraries and its standard descriptors, at least.
        assert!(guest["files"].as_u64().unwrap() > 3, "{guest}");
    }

    // Readable by B alone now, and by its own guest no more.
    let own = level(&label(&disks[0]));
    chcon(&["-l", &level(&label(&disks[1]))], &disks[0]);
    let output = answer(&["verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = problems(&json(&output));
    assert!(
        said.contains("a.img") && said.contains("'verify-b'"),
        "{said}"
    );
    assert!(said.contains("may write"), "{said}");
    let human = answer(&["verify"]);
    ended_with(&human, 1, &["give it back its label: chcon "]);
    // Without categories it is everybody's.
    chcon(&["-l", "s0"], &disks[0]);
    let said = problems(&json(&answer(&["verify", "verify-a", "--json"])));
    assert!(said.contains("a.img"), "{said}");
    chcon(&["-l", &own], &disks[0]);
    run(&[SVIRT_EXEC, "verify", "verify-a", &pids[1].to_string()]);

    refused(
        &answer(&["verify", "nobody"]),
        &["cannot find guest 'nobody'"],
    );
    a.end();
    b.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn verify_looks_at_what_a_real_qemu_has_open() {
    let directory = directory();
    let disk = image(directory.path(), "real.img");
    let guest = Guest::qemu_on(&["--name", "verify-real"], &disk);
    let output = answer(&["verify", "--json"]);
    let verdict = json(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{verdict} {}",
        stderr(&output)
    );
    assert!(verdict["guests"][0]["files"].as_u64().unwrap() > 20);
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_stranger_with_overlapping_categories_is_found() {
    let directory = directory();
    let disk = image(directory.path(), "overlapped.img");
    let guest = Guest::named("overlapped", &disk);
    let level = level(&guest.label());
    let stranger = Stranger::start("svirt_t", &level);
    let pid = stranger.id();
    let output = answer(&["verify", "--json"]);
    let verdict = json(&output);
    let doctor = json(&answer(&["doctor", "--json"]));
    drop(stranger);
    assert_eq!(output.status.code(), Some(1), "{verdict}");
    let said = problems(&verdict);
    let expected = format!("process {pid} (qemu-stub, ");
    assert!(
        said.contains(&expected) && said.contains("has overlapping MCS categories"),
        "{said}"
    );
    let pairs = check(&doctor, "pairs");
    assert_eq!(pairs["ok"], false, "{pairs}");
    assert!(
        pairs["detail"].as_str().unwrap().contains("'overlapped'"),
        "{pairs}"
    );
    run(&[SVIRT_EXEC, "verify"]);
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn denials_says_what_a_guest_tried_and_whose_file_it_was() {
    let directory = directory();
    let ours = image(directory.path(), "ours.img");
    let theirs = image(directory.path(), "the'irs.img");
    let mut a = Guest::qemu_on(&["--name", "denied-a"], &ours);
    let b = Guest::qemu_on(&["--name", "denied-b"], &theirs);
    let members = "\"locking\":\"off\",\"read-only\":true";
    let opened = a.blockdev_add("n", members, &theirs);
    assert!(opened.contains("Permission denied"), "{opened}");
    // The log is complete once it has a mark that was made later.
    denials(&["the'irs.img"]);
    let output = answer(&["denials", "--json", "--since", "1h", "denied-a"]);
    let value = json(&output);
    let all = value["denials"].as_array().unwrap();
    let found = all
        .iter()
        .find(|one| one["path"] == theirs.to_str().unwrap())
        .unwrap_or_else(|| panic!("{value}"));
    assert_eq!(found["guest"], "guest 'denied-a'");
    assert_eq!(found["pid"], a.child.id());
    assert_eq!(found["why"], "categories");
    assert_eq!(found["class"], "file");
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    assert!(text("tried").starts_with("read "), "{found}");
    assert!(text("reason").contains("guest 'denied-b'"), "{found}");
    assert!(text("fix").contains("share-rw=on"), "{found}");
    let human = stdout(&answer(&["denials", "denied-a"]));
    assert!(
        human.contains("may not read") && human.contains(r"the\'irs.img"),
        "{human}"
    );
    // Nothing was refused to B but what every QEMU tries at its start and does without.
    let value = json(&answer(&["denials", "--json", "denied-b"]));
    for one in value["denials"].as_array().unwrap() {
        assert_eq!(one["pid"], b.child.id());
        assert!(
            one["fix"].as_str().unwrap().starts_with("nothing: "),
            "{one}"
        );
    }
    a.end();
    b.end();

    let output = as_user("alice").arg("denials").output().unwrap();
    refused(&output, &["Permission denied", "root may read it"]);
}

fn check<'a>(doctor: &'a Value, name: &str) -> &'a Value {
    member(&doctor["checks"], name)
}

#[test]
#[ignore = "needs the bed: make test"]
fn doctor_finds_this_host_well_and_says_what_is_not() {
    let output = answer(&["doctor", "--json"]);
    let doctor = json(&output);
    assert_eq!(output.status.code(), Some(0), "{doctor}");
    assert_eq!(doctor["ok"], true);
    assert_eq!(doctor["version"], 1);
    let detail = |name: &str| check(&doctor, name)["detail"].as_str().unwrap().to_owned();
    assert!(detail("domain_kvm").starts_with("svirt_t, images svirt_image_t"));
    assert!(detail("domain_tcg").contains("svirt_prot_exec_image_t"));
    assert!(detail("domain_tcg").contains("execmem given"));
    assert!(detail("booleans").contains("virt_use_nfs="), "{doctor}");
    assert!(detail("booleans").contains("svirt_launcher_read_audit=on"));
    assert!(detail("qemu").contains(QEMU), "{doctor}");
    let human = answer(&["doctor"]);
    assert!(!stdout(&human).contains("FAIL"), "{}", stdout(&human));

    // A QEMU that was built here, which no domain is entered by.
    let directory = directory();
    let own = directory.path().join("qemu-own");
    fs::copy(STUB, &own).unwrap();
    let output = answer(&["doctor", "--json", own.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let doctor = json(&output);
    let entry = check(&doctor, "qemu_entry");
    assert_eq!(entry["ok"], false, "{entry}");
    assert!(
        entry["fix"]
            .as_str()
            .unwrap()
            .contains("semanage fcontext -a -t qemu_exec_t")
    );

    // A journal entry that is none, and one of a guest that has ended.
    let guests = Path::new(GUESTS);
    let (corrupt, left) = (guests.join("corrupt.json"), guests.join("1-1.json"));
    fs::write(&corrupt, "{").unwrap();
    let output = answer(&["doctor", "--json"]);
    fs::remove_file(&corrupt).unwrap();
    let doctor = json(&output);
    let entry = check(&doctor, "journal_entry");
    assert_eq!(
        (output.status.code(), &entry["ok"]),
        (Some(1), &Value::Bool(false))
    );
    assert!(
        entry["detail"].as_str().unwrap().contains("corrupt.json"),
        "{entry}"
    );
    fs::write(
        &left,
        r#"{"version":1,"name":"gone","pid":1,"started":1,"boot":"x",
            "context":"u:r:svirt_t:s0:c1,c2","records":[]}"#,
    )
    .unwrap();
    let doctor = json(&answer(&["doctor", "--json"]));
    let entry = check(&doctor, "labels_left");
    assert_eq!(entry["fix"], "svirt-exec restore");
    assert!(
        entry["detail"].as_str().unwrap().contains("'gone'"),
        "{entry}"
    );
    run(&[SVIRT_EXEC, "restore"]);
    assert!(!left.exists());

    // Without the right to change domains.
    let output = Command::new("setpriv")
        .args(["--no-new-privs", SVIRT_EXEC, "doctor", "--json"])
        .output()
        .unwrap();
    assert_eq!(check(&json(&output), "no_new_privs")["ok"], true);
    // A copy of svirt-exec without its label.
    let copy = directory.path().join("svirt-exec");
    fs::copy(SVIRT_EXEC, &copy).unwrap();
    let output = Command::new(&copy)
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(check(&json(&output), "own_domain")["ok"], false);
}
