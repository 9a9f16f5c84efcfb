//! One account on two machines: by linking, and by an archive; with real processes.

use std::process::Stdio;

use crate::person::{Follower, LOOPBACK, Person, command, dunlin, exit, two_contacts};

/// What `dunlin device link` shows first.
fn offer(person: &Person) -> (Follower, String) {
    let mut offer = person.watch(&["device", "link"]);
    let offered = offer.wait("a link", |line| line["event"] == "offered");
    (offer, offered["link"].as_str().unwrap().to_owned())
}

/// Links a new directory to the account of `old`, whose user types the code.
fn linked(old: &Person) -> Person {
    let (mut offer, link) = offer(old);
    let mut new = Person::new(&old.name);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let code = offer.wait("a code", |line| line["event"] == "code");
            let code = code["code"].as_str().unwrap().to_owned();
            old.json(&["device", "confirm", &code]);
            offer.wait("the end", |line| line["event"] == "linked");
        });
        new.start_with(&["--link", &link]);
    });
    new
}

#[test]
fn a_linked_device_has_the_account_and_the_history_and_both_go_on() {
    let (mut ann, ben) = two_contacts();
    ann.json(&["send", "Ben", "before the phone"]);
    ben.json(&["send", "Ann", "hello Ann"]);
    ann.wait_message("Ben", "hello Ann");
    ann.json(&["group", "new", "Harbour"]);

    let mut phone = linked(&ann);

    assert_eq!(phone.ready["account"], ann.ready["account"]);
    assert_eq!(phone.ready["link"], ann.ready["link"], "whoever has the link finds both");
    assert_eq!(phone.ready["name"], "Ann");
    assert_ne!(phone.ready["peer_id"], ann.ready["peer_id"]);
    phone.wait_contact("Ben", "added");
    assert_eq!(phone.wait_message("Ben", "before the phone")["own"], true);
    assert_eq!(phone.wait_message("Ben", "hello Ann")["own"], false);
    phone.wait("the group", || {
        phone.lines(&["group", "list"]).iter().any(|group| group["name"] == "Harbour").then_some(())
    });

    // The phone reaches Ben through the laptop alone.
    phone.json(&["send", "Ben", "from the phone"]);
    ben.wait_message("Ann", "from the phone");
    assert_eq!(ann.wait_message("Ben", "from the phone")["own"], true);
    ben.json(&["send", "Ann", "to both"]);
    phone.wait_message("Ben", "to both");
    ann.wait_message("Ben", "to both");
    ben.wait_state("Ann", "to both", "received");

    // Both list both, and know which they are.
    for device in [&ann, &phone] {
        let devices = device.wait("two devices", || {
            let devices = device.lines(&["device", "list"]);
            (devices.len() == 2).then_some(devices)
        });
        assert_eq!(devices[0]["own"], true);
        assert_eq!(devices[1]["own"], false);
        assert!(devices.iter().all(|device| device["added_ms"].as_i64() > Some(0)));
    }
    let own = phone.lines(&["device", "list"])[0]["id"].as_str().unwrap().to_owned();
    phone.json(&["device", "name", "Phone"]);
    ann.wait("the name", || {
        ann.lines(&["device", "list"]).iter().any(|device| device["name"] == "Phone").then_some(())
    });

    // It comes back by itself, since it remembers where the laptop is.
    phone.kill();
    ann.json(&["send", "Ben", "while the phone was off"]);
    phone.start_with(&[]);
    assert_eq!(phone.wait_message("Ben", "while the phone was off")["own"], true);

    // Removed, and told that this is no lock.
    let told = ann.text(&["device", "remove", "Phone"]);
    assert!(told.contains("no lock") && told.contains("Berty"), "{told}");
    let removed = ann.lines(&["device", "list"]);
    assert_eq!((&removed[1]["id"], &removed[1]["removed"]), (&own.into(), &true.into()));
    ann.refused(exit::REFUSED, &["device", "remove", "Phone"]);
    ann.refused(exit::NOT_FOUND, &["device", "remove", "Tablet"]);
    let own = removed[0]["id"].as_str().unwrap();
    ann.refused(exit::REFUSED, &["device", "remove", own]);
    phone.end();
    ann.end();
}

#[test]
fn what_is_wrong_with_a_link_is_told_and_leaves_no_account() {
    let mut ann = Person::new("Ann");
    ann.start(&[]);
    let account = ann.ready["account"].clone();
    let refused = |code: i32, directory: &Person, link: &str, says: &str| {
        let args = ["node", "--listen", LOOPBACK, "--link", link];
        let told = directory.refused(code, &args);
        assert!(told.contains(says), "{told}");
    };
    let (offered, link) = offer(&ann);
    let new = Person::new("Ann");
    let mut mistyped = link.clone();
    mistyped.replace_range(30..31, if &link[30..31] == "A" { "B" } else { "A" });
    refused(exit::USAGE, &new, &mistyped, "mistyped");
    refused(exit::USAGE, &new, "https://berty.tech/id#x", "no device link");
    ann.refused(exit::REFUSED, &["device", "confirm", "123456"]);
    ann.refused(exit::REFUSED, &["device", "confirm", "12345"]);

    // Taken back by a newer one, then by the end of the command.
    let (mut newer, second) = offer(&ann);
    refused(exit::REFUSED, &new, &link, "not offer this link any more");
    drop(offered);

    // Used by a device whose code is not the one that was typed.
    let mut process = command(&new.directory)
        .args(["node", "--listen", LOOPBACK, "--link", &second])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let code = newer.wait("a code", |line| line["event"] == "code")["code"].as_str().unwrap().to_owned();
    let wrong = if code == "000 000" { "000 001" } else { "000 000" };
    let told = ann.refused(exit::REFUSED, &["device", "confirm", wrong]);
    assert!(told.contains("somebody is between"), "{told}");
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut process.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(exit::REFUSED), "{stderr}");
    assert!(stderr.contains(&format!("The code is {code}")) && stderr.contains("not confirmed"), "{stderr}");
    refused(exit::REFUSED, &new, &second, "used, taken back or replaced");

    // A directory with an account takes no other.
    let (_third, link) = offer(&ann);
    let mut other = Person::new("Other");
    other.start(&[]);
    other.end();
    refused(exit::REFUSED, &other, &link, "account here already");
    ann.end();
    refused(exit::REFUSED, &ann, &link, "account here already");
    // Nobody is there any more.
    refused(exit::REFUSED, &new, &link, "cannot be reached");
    ann.start(&[]);
    assert_eq!(ann.ready["account"], account, "the old device is as it was");
    assert_eq!(ann.lines(&["device", "list"]).len(), 1, "nobody joined");
}

#[test]
fn a_device_that_is_killed_before_the_code_is_typed_has_nothing_and_can_try_again() {
    let mut ann = Person::new("Ann");
    ann.start(&[]);
    let (mut offered, link) = offer(&ann);
    let mut phone = Person::new("Ann");
    let mut process = command(&phone.directory)
        .args(["node", "--listen", LOOPBACK, "--link", &link])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    offered.wait("a code", |line| line["event"] == "code");
    process.kill().unwrap();
    process.wait().unwrap();
    drop(offered);

    let (mut offered, link) = offer(&ann);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let code = offered.wait("a code", |line| line["event"] == "code");
            ann.json(&["device", "confirm", code["code"].as_str().unwrap()]);
        });
        let joined = dunlin(&phone.directory, &["--json", "device", "join", &link], "");
        assert_eq!(joined.code, 0, "{}", joined.stderr);
        let joined: serde_json::Value = serde_json::from_str(&joined.stdout).unwrap();
        assert_eq!((&joined["account"], &joined["name"]), (&ann.ready["account"], &"Ann".into()));
    });
    phone.start_with(&[]);
    assert_eq!(phone.ready["account"], ann.ready["account"]);
    phone.kill();
    phone.start_with(&[]);
    assert_eq!(phone.ready["account"], ann.ready["account"]);
}
