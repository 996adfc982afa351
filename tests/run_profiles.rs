//! Every shipped profile runs as it stands, unprivileged: it is ready, silent where it should be, takes a message or says why not, and
//! stops cleanly.

#[path = "common/process.rs"]
mod process;

use process::{Client, Running, ask, root};

#[test]
fn every_shipped_profile_runs_answers_and_stops() {
    let mut run = 0;
    for entry in std::fs::read_dir(root().join("firmware-cfg/profiles")).expect("profiles").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let plan = aldis::config::check(&path, &[]).unwrap_or_else(|p| panic!("{}: {p:#?}", path.display()));
        let directory = tempfile::tempdir().expect("a directory");
        let set: Vec<String> =
            plan.listeners.iter().map(|l| format!("listener.{}.address=127.0.0.1:0", l.name)).collect();
        let node = Running::start(&path, directory.path(), &set);
        assert_eq!(node.listeners.len(), plan.listeners.len(), "{}", path.display());
        let (exit, status) = ask(&node.socket, &["status"]);
        assert_eq!((exit, &status["schema"]), (0, &"aldis.status/1".into()), "{}", path.display());
        assert_eq!(status["node"], plan.node.name.to_string());
        assert_eq!(status["features"], serde_json::json!([]), "the program under test is built as a release is");
        for bearer in status["bearers"].as_array().expect("a list") {
            assert_eq!(bearer["emcon"]["state"], "silent", "{}: a shipped bearer starts silent", path.display());
        }
        let mut client = Client::connect(node.address());
        assert!(client.say("EHLO probe.example").starts_with("250"), "{}", path.display());
        assert!(client.say("QUIT").starts_with("221"), "{}", path.display());
        node.stop();
        run += 1;
    }
    assert!(run >= 4, "only {run} profiles");
}
