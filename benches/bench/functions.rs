//! The compared functions. `make bench` builds them.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use tokio::process::Command;

use crate::{
    common::{TABLE, events::function_environment, runtime_api::Runtime},
    dynamodb::TlsEndpoint,
};

/// The roots that a function trusts. The value is the variable that names their file.
#[derive(Clone, Copy)]
pub enum Trust {
    /// Amazon's roots, which this service has built in.
    Amazon(&'static str),
    /// The operating system's roots, the usual default.
    System(&'static str),
}

pub struct Function {
    pub name: String,
    program: PathBuf,
    arguments: Vec<PathBuf>,
    trust: Trust,
    /// The file or folder that is zipped and deployed.
    package: PathBuf,
}

const OURS: &str = "target/lambda/loyalty-codes/bootstrap";
const DELIVER: &str = "target/lambda/deliver/bootstrap";

impl Function {
    fn rust(name: &str, program: PathBuf, trust: Trust) -> Self {
        Self { name: name.to_owned(), package: program.clone(), program, arguments: Vec::new(), trust }
    }

    pub fn ours() -> Self {
        Self::rust("loyalty-codes", in_project(OURS), Trust::Amazon("AWS_CA_BUNDLE"))
    }

    /// The delivery function.
    pub fn deliver() -> Self {
        Self::rust("deliver", in_project(DELIVER), Trust::Amazon("AWS_CA_BUNDLE"))
    }

    /// The smallest function, a lower limit of cold starts.
    pub fn hello() -> Self {
        Self::rust("hello, lambda_http", built("hello"), Trust::System("UNUSED"))
    }

    pub fn node() -> Self {
        Self {
            name: "Node.js, SDK v3".to_owned(),
            program: interpreter("node", ["-e", "console.log(process.execPath)"]),
            arguments: vec![in_project("benches/functions/node/dist/index.cjs")],
            trust: Trust::Amazon("NODE_EXTRA_CA_CERTS"),
            package: in_project("benches/functions/node/dist"),
        }
    }

    pub fn python() -> Self {
        Self {
            name: "Python, boto3".to_owned(),
            program: interpreter("python3", ["-c", "import sys; print(sys.executable)"]),
            arguments: vec![in_project("target/functions/python/function.py")],
            trust: Trust::System("AWS_CA_BUNDLE"),
            package: in_project("target/functions/python"),
        }
    }

    pub fn all() -> [Self; 5] {
        [
            Self::ours(),
            Self::hello(),
            Self::rust("Rust, default features", built("default-features"), Trust::System("SSL_CERT_FILE")),
            Self::node(),
            Self::python(),
        ]
    }

    /// Returns another build of the function, from `NAME=PATH`. `NAME=PATH,system` trusts all roots
    /// of the system.
    pub fn build(argument: &str) -> Self {
        let (name, path) = argument.split_once('=').unwrap();
        let (path, trust) = match path.strip_suffix(",system") {
            Some(path) => (path, Trust::System("AWS_CA_BUNDLE")),
            None => (path, Trust::Amazon("AWS_CA_BUNDLE")),
        };
        Self::rust(name, PathBuf::from(path), trust)
    }

    /// Returns the command that starts the function as Lambda does, run by `wrapper` unless that is
    /// empty.
    pub fn command(&self, runtime: &Runtime, dynamodb: &TlsEndpoint, wrapper: &[&str]) -> Command {
        let mut words = wrapper.iter().map(PathBuf::from).chain([self.program.clone()]);
        let mut command = runtime.function(words.next().unwrap());
        command.args(words).args(&self.arguments).envs(function_environment(&dynamodb.url, TABLE));
        match self.trust {
            Trust::Amazon(variable) => command.env(variable, dynamodb.amazon_roots()),
            Trust::System(variable) => command.env(variable, dynamodb.system_roots()),
        };
        command
    }

    /// Size of the deployment package in bytes.
    pub fn zip_size(&self) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let zip = folder.path().join("function.zip");
        let script = "
import os, sys, zipfile
package, target = sys.argv[1:]
with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as zip:
    if os.path.isfile(package):
        zip.write(package, 'bootstrap')
    for folder, _, files in os.walk(package):
        for file in files:
            if not file.endswith('.pyc'):
                path = os.path.join(folder, file)
                zip.write(path, os.path.relpath(path, package))";
        let zipped =
            process::Command::new("python3").args(["-c", script]).arg(&self.package).arg(&zip).status();
        assert!(zipped.unwrap().success(), "{}", self.package.display());
        fs::metadata(zip).unwrap().len()
    }
}

/// Path of one of the functions for comparison in Rust.
fn built(name: &str) -> PathBuf {
    in_project("target/functions/release").join(name)
}

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Asks an interpreter for its own path. The program on `PATH` may be a shim that searches at every
/// start, and functions have no `PATH`.
fn interpreter(program: &str, ask: [&str; 2]) -> PathBuf {
    let output = process::Command::new(program).args(ask).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}
