//! Commands that are interrupted leave no file behind.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

use serde_json::json;

use super::{
    common::{
        faults::{Fault, with_fault_proxy},
        served::{HANG_TIMEOUT, loyaltyctl},
    },
    finish, with_demo_org,
};

/// Signals that end a command, with its exit code.
const SIGNALS: [(&str, i32); 2] = [("-INT", 130), ("-TERM", 143)];

/// Sends a signal, and returns the exit code.
fn end(mut process: Child, signal: &str) -> Option<i32> {
    let sent = Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
    process.wait().unwrap().code()
}

fn files(folder: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let entry = |entry: fs::DirEntry| {
        // It may be gone already.
        let length = entry.metadata().map_or(0, |metadata| metadata.len());
        (entry.file_name().into_string().unwrap(), length)
    };
    entries.map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_take_leaves_no_file_and_its_numbers_are_in_the_audit() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cards.csv");
    for (at, (signal, code)) in SIGNALS.into_iter().enumerate() {
        let endpoint = operator.table.endpoint();
        let mut command = loyaltyctl(&["--endpoint", &endpoint, "--table", operator.table.name()]);
        command.args(["numbers", "take", "--org", "966", "--count", "10000000", "--to"]).arg(&file);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while files(folder.path()).iter().all(|(_, length)| *length == 0) {
            assert!(started.elapsed() < HANG_TIMEOUT, "{signal}: no numbers are written");
            std::thread::yield_now();
        }
        assert_eq!(end(process, signal), Some(code));
        assert_eq!(files(folder.path()), [], "{signal}");
        let acts = operator.acts("numbers take");
        assert_eq!((acts.len(), &acts[0]["outcome"]), (at + 1, &json!("begun")));
        assert_eq!(acts[0]["detail"]["first"], 1_000_000_010 + 10_000_000 * u64::try_from(at).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_leaves_no_file() {
    let operator = with_demo_org().await;
    let (_, faults) = with_fault_proxy(&operator.table, "shop.1").await;
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("customers.csv");
    fs::write(&rows, "mobile,email\n12,\n8799361139,tom@example.com\n").unwrap();
    for (signal, code) in SIGNALS {
        let (reach, reached) = mpsc::channel();
        faults.inject(move |called, _| {
            (called == "TransactWriteItems").then(|| {
                let _ = reach.send(()); // once is enough
                Fault::Dropped
            })
        });
        let import = ["customer", "import", rows.to_str().unwrap(), "--org", "966"];
        let mut command = operator.through(&faults, &import);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        reached.recv_timeout(HANG_TIMEOUT).unwrap();
        assert_eq!(files(folder.path()).len(), 2, "the rows and the errors");
        assert_eq!(end(process, signal), Some(code));
        assert_eq!(files(folder.path()).len(), 1, "{signal}: the rows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_edit_leaves_no_file_and_an_editor_may_use_ctrl_c() {
    let operator = with_demo_org().await;
    let (scripts, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let endpoint = operator.table.endpoint();
    let edit = |script: &str| {
        let path = scripts.path().join("editor.sh");
        fs::write(&path, format!("exec >/dev/null 2>&1\n{script}\n")).unwrap();
        let mut command = loyaltyctl(&["--endpoint", &endpoint, "--table", operator.table.name()]);
        command.args(["org", "edit", "966", "--yes"]).env("TMPDIR", temporary.path());
        // An empty variable is one that is not set.
        command.env("VISUAL", "").env("EDITOR", format!("sh {}", path.display()));
        let ended = finish(&mut command);
        assert_eq!(files(temporary.path()), [], "{script}");
        ended.status.code()
    };
    let change = "sed -i s/Demo/Other/ \"$1\"";
    // A terminal sends Ctrl-C to both.
    assert_eq!(edit(&format!("{change}; kill -INT $PPID; kill -INT $$")), Some(130));
    let until_ended = "while kill -0 $PPID; do :; done";
    assert_eq!(edit(&format!("{change}; kill -TERM $PPID; {until_ended}")), Some(143));
    let name = || operator.json(&["org", "show", "966"])["definition"]["name"].clone();
    assert_eq!(name(), "Demo Stores");
    // An editor that goes on after Ctrl-C, as some do.
    let program = env!("CARGO_BIN_EXE_loyaltyctl");
    let work = format!("{program} --endpoint {endpoint} --table {} org list", operator.table.name());
    assert_eq!(edit(&format!("kill -INT $PPID; {work}; {work}; {change}")), Some(0));
    assert_eq!(name(), "Other Stores");
}
