//! The output of commands, and errors when it cannot be written.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, PipeWriter, Write, pipe},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use super::{
    Operator,
    common::{
        self, MOBILE,
        served::{HANG_TIMEOUT, Served, loyaltyctl},
    },
    finish, paste, write,
};

/// A device that is always full.
pub fn full_disk() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader has closed it.
pub fn closed_pipe() -> PipeWriter {
    pipe().unwrap().1
}

/// Runs a command until it ends, with `output` as its standard output.
pub fn finish_into(command: &mut Command, output: impl Into<Stdio>) -> Output {
    let process = command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).spawn().unwrap();
    wait(process)
}

/// Waits for a process to end. Kills a process that does not end, and fails the test.
pub fn wait(process: Child) -> Output {
    let id = process.id().to_string();
    let (send, ended) = mpsc::channel();
    std::thread::spawn(move || send.send(process.wait_with_output()));
    let Ok(ended) = ended.recv_timeout(HANG_TIMEOUT) else {
        Command::new("kill").args(["-KILL", &id]).status().unwrap();
        panic!("process {id} does not end");
    };
    ended.unwrap()
}

/// Commands that print something, for this endpoint.
fn printing(endpoint: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["--help"],
        vec!["help", "till"],
        vec!["--version"],
        vec!["openapi"],
        vec!["completions", "bash"],
        vec!["--endpoint", endpoint, "org", "list"],
        vec!["--endpoint", endpoint, "--json", "org", "show", "966"],
        vec!["--endpoint", endpoint, "org", "export", "966"],
        vec!["--endpoint", endpoint, "till", "list"],
        vec!["--endpoint", endpoint, "customer", "find", "--org", "966", "mobile", MOBILE],
        vec!["--endpoint", endpoint, "customer", "show", "--org", "966", "313302314"],
        vec!["--endpoint", endpoint, "customer", "show", "--reveal", "--org", "966", "313302314"],
        vec!["--endpoint", endpoint, "customer", "timeline", "--org", "966", "313302314"],
        vec!["--endpoint", endpoint, "customer", "export", "--org", "966", "313302314"],
        vec!["--endpoint", endpoint, "otp", "list", "--org", "966", "313302314"],
        vec!["--endpoint", endpoint, "otp", "unlock", "--org", "966", "313302314"],
        vec!["--endpoint", endpoint, "otp", "revoke", "--yes", "--org", "966", "313302314"],
        vec!["--endpoint", endpoint, "numbers", "preview", "--org", "966"],
        vec!["--endpoint", endpoint, "numbers", "check", "--org", "966", "1000000010"],
        vec!["--endpoint", endpoint, "audit", "list", "--org", "966"],
        vec!["--endpoint", endpoint, "doctor", "--org", "966"],
        vec!["--endpoint", endpoint, "console"],
        vec!["--endpoint", endpoint, "table", "create"],
        vec!["serve", "--in-memory", "--demo", "--listen", "127.0.0.1:0"],
    ]
}

#[test]
fn a_full_disk_is_an_error_of_every_command_that_prints() {
    let served = Served::start(&["--in-memory", "--demo"]);
    for arguments in printing(served.dynamodb()) {
        let ended = finish_into(&mut loyaltyctl(&arguments), full_disk());
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("cannot write to standard output: No space left"), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_closed_pipe_ends_every_command_that_prints_quietly() {
    let served = Served::start(&["--in-memory", "--demo"]);
    for arguments in printing(served.dynamodb()) {
        let ended = finish_into(&mut loyaltyctl(&arguments), closed_pipe());
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), "", "{arguments:?}");
    }
}

#[test]
fn an_error_that_cannot_be_printed_still_sets_the_exit_code() {
    for (arguments, code) in [(&["org", "frobnicate"][..], 2), (&["serve", "--listen", "192.0.2.1:1"], 1)] {
        for stderr in [Stdio::from(full_disk()), Stdio::from(closed_pipe())] {
            let mut command = loyaltyctl(arguments);
            let process = command.stdin(Stdio::null()).stdout(closed_pipe()).stderr(stderr).spawn().unwrap();
            let status = wait(process).status;
            assert_eq!((status.code(), status.signal()), (Some(code), None), "{arguments:?}");
        }
    }
}

#[test]
fn a_server_keeps_running_after_its_console_is_closed() {
    let (reader, writer) = pipe().unwrap();
    let (errors, stderr) = pipe().unwrap();
    let mut process = loyaltyctl(&["serve", "--in-memory", "--demo", "--listen", "127.0.0.1:0"])
        .stdout(writer)
        .stderr(stderr)
        .spawn()
        .unwrap();
    let mut requests = String::new();
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        requests = format!("{requests}{line}\n");
        // The last line. A server that cannot print it ends.
        if line.starts_with("alias ") {
            break;
        }
    }
    drop(errors);
    // The console is closed. Neither the log line nor the delivered message can be written.
    let requests = &requests[requests.find(": issue").unwrap()..];
    for _ in 0..2 {
        let answers = paste(requests);
        assert!(answers[0]["createdId"].is_u64(), "{answers:?}");
        assert_eq!(answers[3], json!({"entity": true, "warnings": []}));
    }
    assert!(process.try_wait().unwrap().is_none(), "the server must keep running");
    process.kill().unwrap();
    process.wait().unwrap();
}

/// Returns a command's output on a terminal, with these environment variables.
pub fn on_terminal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    answered(arguments, variables, "").1
}

/// Runs a command on a terminal on which `typed` is typed, and then the end of the input. Returns
/// the exit code, and everything that the terminal has shown.
pub fn answered(arguments: &[&str], variables: &[(&str, &str)], typed: &str) -> (i32, String) {
    let command = loyaltyctl(arguments);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ");
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("AWS_ACCESS_KEY_ID");
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        terminal.env_remove(variable);
    }
    terminal.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = terminal.spawn().unwrap();
    process.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let ended = wait(process);
    (ended.status.code().unwrap(), String::from_utf8(ended.stdout).unwrap())
}

#[test]
fn a_terminal_gets_colours_unless_a_variable_disables_them() {
    let served = Served::start(&["--in-memory", "--demo"]);
    let list = ["--endpoint", served.dynamodb(), "org", "list"];
    for arguments in
        [&["--help"][..], &list, &["org", "frobnicate"], &["--endpoint", "http://127.0.0.1:9", "org", "list"]]
    {
        let colourful = on_terminal(arguments, &[]);
        assert!(colourful.contains('\u{1b}'), "{arguments:?}: {colourful}");
        for refusal in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")] {
            let plain = on_terminal(arguments, &[refusal]);
            assert!(!plain.contains('\u{1b}'), "{arguments:?} {refusal:?}: {plain}");
            assert!(!plain.is_empty());
        }
        let both = on_terminal(arguments, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]);
        assert!(!both.contains('\u{1b}'), "{arguments:?}: {both}");
    }
}

#[test]
fn other_outputs_get_colours_only_if_a_variable_forces_them() {
    let served = Served::start(&["--in-memory", "--demo"]);
    let arguments = ["--endpoint", served.dynamodb(), "till", "rotate", "store.server"];
    let plain = finish(loyaltyctl(&arguments).env("CLICOLOR_FORCE", "0"));
    assert!(!plain.stdout.contains(&0x1b) && plain.status.success());
    finish(&mut loyaltyctl(&[
        "--endpoint",
        served.dynamodb(),
        "till",
        "revoke",
        "--yes",
        "store.server",
        "--new",
    ]));
    let forced = finish(loyaltyctl(&arguments).env("CLICOLOR_FORCE", "1"));
    assert!(forced.stdout.contains(&0x1b), "{}", String::from_utf8_lossy(&forced.stdout));
}

#[test]
fn with_json_argument_errors_are_json() {
    for arguments in [
        &["--json"][..],
        &["--json", "frobnicate"],
        &["till", "--json"],
        &["org", "show", "x", "--json"],
        &["till", "create", "a b", "--json", "--org", "1", "--allow", "otp:fetch"],
        &["--endpoint", "nowhere", "org", "list", "--json"],
    ] {
        let output = finish(&mut loyaltyctl(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert!(error["error"].as_str().is_some_and(|text| !text.starts_with("error")), "{error}");
        assert!(output.stdout.is_empty());
    }
    let plain = finish(&mut loyaltyctl(&["org", "show", "--", "--json"]));
    assert!(
        plain.stderr.starts_with(b"error: invalid value '--json'"),
        "after `--`, `--json` is an argument of the command"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_name_or_an_argument_cannot_control_the_terminal() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, common::DEMO_ORG)]);
    // An earlier version or a user of the AWS console could have stored this name.
    let name = "Demo\u{1b}[2J\tStores\n\u{9b}1m\u{202e}";
    let table = &operator.table;
    let client = table.client();
    for (pk, sk) in [("ORG#966", "ORG"), ("ORGS", "ORG#0000000966")] {
        let key = [("PK", pk), ("SK", sk)].map(|(n, v)| (n.to_owned(), AttributeValue::S(v.to_owned())));
        let read = client.get_item().table_name(table.name()).set_key(Some(key.into()));
        let mut item = read.send().await.unwrap().item.unwrap();
        if let Some(AttributeValue::S(definition)) = item.get_mut("definition") {
            let mut changed: Value = serde_json::from_str(definition).unwrap();
            changed["name"] = name.into();
            *definition = changed.to_string();
        } else {
            item.insert("name".to_owned(), AttributeValue::S(name.to_owned()));
        }
        client.put_item().table_name(table.name()).set_item(Some(item)).send().await.unwrap();
    }
    let control_characters_in = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let found = text.chars().any(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || c == '\u{202e}');
        found.then_some(text)
    };
    for arguments in [&["org", "list"][..], &["org", "show", "966"]] {
        let text = operator.run(arguments).stdout;
        assert_eq!(control_characters_in(&text), None);
        assert!(String::from_utf8(text).unwrap().contains(r"Demo\u{1b}[2J\tStores\n"));
        assert_eq!(control_characters_in(&operator.run(&[&["--json"], arguments].concat()).stdout), None);
    }
    assert_eq!(operator.json(&["org", "list"])[0]["name"], name, "JSON contains the name with escapes");
    for argument in ["\u{1b}[2J", "a\u{9b}b"] {
        for command in
            [["org", argument].as_slice(), &["org", "apply", argument], &["till", "rotate", argument]]
        {
            assert_eq!(control_characters_in(&operator.run(command).stderr), None, "{command:?}");
        }
    }
}
